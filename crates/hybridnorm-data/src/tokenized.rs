//! Both sides of a split as tokens, in memory.

use std::sync::Arc;
use std::thread;

use super::{DataError, TextSplit, TokenStore, Tokenizer};

/// The tokens of one side: each document's, followed by the end-of-document id.
#[derive(Debug, Clone)]
pub struct TokenSplit {
    /// The ids.
    pub tokens: Arc<TokenStore>,
    /// UTF-8 bytes of the text behind them. End-of-document ids stand for 0 bytes.
    pub bytes: u64,
    /// How many documents, or ends of documents, there are.
    pub documents: usize,
}

/// The held-out tokens with the text behind each, so that a loss can be told in bits per byte.
#[derive(Debug, Clone)]
pub struct ValidationSplit {
    /// The tokens.
    pub split: TokenSplit,
    /// The documents' bytes, one after the other.
    pub(super) text: Vec<u8>,
    /// For each token, how many bytes of `text` the tokens up to and including it stand for.
    pub(super) ends: Vec<usize>,
}

/// Both sides as tokens.
#[derive(Debug, Clone)]
pub struct TokenizedCorpus {
    /// What the model learns from.
    pub train: TokenSplit,
    /// What it is scored on.
    pub validation: ValidationSplit,
}

impl TextSplit<'_> {
    /// Tokenizes both sides, training on as many threads as the machine runs at once. A document is never divided
    /// between threads, so what comes out does not depend on their number.
    ///
    /// # Errors
    ///
    /// The tokenizer has no end-of-document id or refuses a text.
    pub fn tokenize(&self, tokenizer: &Tokenizer) -> Result<TokenizedCorpus, DataError> {
        Ok(TokenizedCorpus {
            train: tokenize(&self.train, tokenizer)?,
            validation: tokenize_with_ends(&self.validation, tokenizer)?,
        })
    }
}

fn tokenize(texts: &[&str], tokenizer: &Tokenizer) -> Result<TokenSplit, DataError> {
    let end = tokenizer.end_of_document()?;
    let encode = |texts: &[&str]| -> Result<TokenStore, DataError> {
        let mut store = TokenStore::for_vocab(tokenizer.vocab_size());
        for text in texts {
            store.extend(&tokenizer.encode(text)?);
            store.extend(&[end]);
        }
        Ok(store)
    };
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let parts: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = shares(texts, threads)
            .into_iter()
            .map(|share| scope.spawn(move || encode(share)))
            .collect();
        workers
            .into_iter()
            // A worker only panics by a mistake in the program: pass it on.
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let mut tokens = TokenStore::for_vocab(tokenizer.vocab_size());
    for part in parts {
        tokens.append(&part?);
    }
    Ok(TokenSplit {
        tokens: Arc::new(tokens),
        bytes: bytes(texts),
        documents: texts.len(),
    })
}

fn tokenize_with_ends(texts: &[&str], tokenizer: &Tokenizer) -> Result<ValidationSplit, DataError> {
    let end = tokenizer.end_of_document()?;
    let mut tokens = TokenStore::for_vocab(tokenizer.vocab_size());
    let mut text = Vec::new();
    let mut ends = Vec::new();
    for document in texts {
        let encoding = tokenizer.encode_with_ends(document)?;
        ends.extend(encoding.ends.iter().map(|end| text.len() + end));
        text.extend_from_slice(document.as_bytes());
        tokens.extend(&encoding.ids);
        tokens.extend(&[end]);
        ends.push(text.len());
    }
    Ok(ValidationSplit {
        split: TokenSplit {
            tokens: Arc::new(tokens),
            bytes: bytes(texts),
            documents: texts.len(),
        },
        text,
        ends,
    })
}

fn bytes(texts: &[&str]) -> u64 {
    texts.iter().map(|text| text.len() as u64).sum()
}

/// Cuts `texts` into at most `count` runs of about equal bytes.
fn shares<'t, 'a>(texts: &'t [&'a str], count: usize) -> Vec<&'t [&'a str]> {
    let target = bytes(texts).div_ceil(count.max(1) as u64);
    let mut shares = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, text) in texts.iter().enumerate() {
        size += text.len() as u64;
        if size >= target {
            shares.push(&texts[start..=index]);
            (start, size) = (index + 1, 0);
        }
    }
    if start < texts.len() {
        shares.push(&texts[start..]);
    }
    shares
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::{SplitRule, tokenizer_of_words};
    use super::*;

    #[test]
    fn every_document_is_followed_by_the_end_of_document() {
        let split = TextSplit {
            train: vec!["aé", "b"],
            validation: vec!["c", "é"],
            rule: SplitRule::Documents,
        };
        let tokenized = split.tokenize(&Tokenizer::Byte).unwrap();
        let train = tokenized.train;
        assert_eq!(
            *train.tokens,
            TokenStore::U16(vec![97, 0xc3, 0xa9, 256, 98, 256])
        );
        assert_eq!((train.bytes, train.documents), (4, 2));
        let validation = tokenized.validation;
        assert_eq!(
            *validation.split.tokens,
            TokenStore::U16(vec![99, 256, 0xc3, 0xa9, 256])
        );
        assert_eq!(validation.text, "cé".as_bytes());
        assert_eq!(validation.ends, [1, 1, 2, 3, 3]);
        assert_eq!(validation.split.bytes, 3);
    }

    #[test]
    fn bytes_are_those_of_the_text_under_every_tokenizer() {
        let split = TextSplit {
            train: vec!["a b", "éé"],
            validation: vec!["b b"],
            rule: SplitRule::Documents,
        };
        let tokenized = split.tokenize(&tokenizer_of_words()).unwrap();
        assert_eq!(
            *tokenized.train.tokens,
            TokenStore::U16(vec![0, 1, 9, 2, 9])
        );
        assert_eq!(tokenized.train.bytes, 7);
        assert_eq!(tokenized.validation.ends, [1, 3, 3]);
    }

    #[rstest]
    fn shares_keep_every_text_in_order(#[values(1, 2, 3, 8, 100)] count: usize) {
        let texts = ["aaaa", "b", "cc", "", "ddddddd", "e"];
        let shares = shares(&texts, count);
        assert!(shares.len() <= count);
        assert_eq!(shares.concat(), texts);
    }
}
