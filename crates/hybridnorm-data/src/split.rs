//! Training and validation text, told apart by what the text is and not by where it stands.

use std::sync::Arc;
use std::thread;

use super::{Corpus, DataError, TokenStore, Tokenizer};

/// The share that is held out unless the run says otherwise.
pub const VALIDATION_FRACTION: f64 = 0.05;

/// How a corpus was split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitRule {
    /// Whole documents are held out, chosen by the hash of their text.
    Documents,
    /// The end of every document is held out, because there are too few to hold out whole ones.
    Tails,
}

/// The text of both sides, borrowed from the corpus and in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSplit<'a> {
    /// What the model learns from.
    pub train: Vec<&'a str>,
    /// What it is scored on.
    pub validation: Vec<&'a str>,
    /// How the two were told apart.
    pub rule: SplitRule,
}

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

impl<'a> TextSplit<'a> {
    /// Holds out about `fraction` of `corpus`.
    ///
    /// A document is held out when the first eight bytes of the BLAKE3 hash of its text, read as a number in 0..1,
    /// lie below `fraction`. The choice therefore needs no seed, does not move when documents are added or renamed,
    /// and puts identical texts on the same side. When chance leaves one side empty, the document with the smallest
    /// hash is held out, or the one with the largest kept.
    ///
    /// When `fraction` of the documents is fewer than two of them (a single file, say, or under 40 documents at
    /// 5 %), whole documents are too coarse, and the last `fraction` of the bytes of each is held out instead, cut
    /// between two characters.
    ///
    /// # Errors
    ///
    /// `fraction` is not between 0 and 1, or one side would be empty.
    pub fn new(corpus: &'a Corpus, fraction: f64) -> Result<Self, DataError> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(DataError::OutOfRange {
                field: "validation fraction",
                value: fraction.to_string(),
                allowed: "a number above 0 and below 1",
            });
        }
        let texts: Vec<&str> = corpus.documents.iter().map(|d| d.text.as_str()).collect();
        let split = if texts.len() as f64 * fraction < 2.0 {
            Self::by_tails(&texts, fraction)
        } else {
            Self::by_documents(&texts, fraction)
        };
        if split.train.is_empty() || split.validation.is_empty() {
            return Err(DataError::CannotSplit {
                fraction,
                documents: texts.len(),
                bytes: corpus.bytes,
            });
        }
        Ok(split)
    }

    fn by_documents(texts: &[&'a str], fraction: f64) -> Self {
        let places: Vec<f64> = texts
            .iter()
            .map(|text| place(&blake3::hash(text.as_bytes())))
            .collect();
        let smallest = places.iter().copied().fold(1.0, f64::min);
        let largest = places.iter().copied().fold(0.0, f64::max);
        let held_out = |place: f64| (place < fraction || place == smallest) && place != largest;
        let side = |validation: bool| {
            texts
                .iter()
                .zip(&places)
                .filter(|&(_, &place)| held_out(place) == validation)
                .map(|(&text, _)| text)
                .collect()
        };
        Self {
            train: side(false),
            validation: side(true),
            rule: SplitRule::Documents,
        }
    }

    fn by_tails(texts: &[&'a str], fraction: f64) -> Self {
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for text in texts {
            let held_out = (text.len() as f64 * fraction).round() as usize;
            let (head, tail) = text.split_at(text.floor_char_boundary(text.len() - held_out));
            train.extend((!head.is_empty()).then_some(head));
            validation.extend((!tail.is_empty()).then_some(tail));
        }
        Self {
            train,
            validation,
            rule: SplitRule::Tails,
        }
    }

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

/// The hash of a text as a number in 0..1.
pub(super) fn place(hash: &blake3::Hash) -> f64 {
    let (head, _) = hash.as_bytes().split_at(8);
    let number = head
        .iter()
        .fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    number as f64 / 2f64.powi(64)
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

    use super::super::Document;
    use super::super::tokenizer_of_words;
    use super::*;

    fn corpus(texts: &[&str]) -> Corpus {
        let documents = texts
            .iter()
            .enumerate()
            .map(|(index, text)| Document {
                name: index.to_string(),
                text: (*text).to_owned(),
            })
            .collect();
        Corpus::assemble(documents, String::new(), Vec::new(), Vec::new())
    }

    fn numbered(count: usize) -> Corpus {
        let texts: Vec<_> = (0..count).map(|n| format!("document {n}")).collect();
        corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn about_the_fraction_is_held_out_and_nothing_is_lost() {
        let corpus = numbered(4000);
        let split = TextSplit::new(&corpus, 0.05).unwrap();
        assert_eq!(split.rule, SplitRule::Documents);
        // Binomial: mean 200, deviation 13.8; allow five of them.
        assert!(
            split.validation.len().abs_diff(200) < 69,
            "{}",
            split.validation.len()
        );
        let mut all = [split.train, split.validation].concat();
        all.sort_unstable();
        let mut expected: Vec<_> = corpus.documents.iter().map(|d| d.text.as_str()).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_document_keeps_its_side_when_others_come_or_names_change() {
        let (small, large) = (numbered(1000), numbered(2000));
        let small = TextSplit::new(&small, 0.05).unwrap();
        let large = TextSplit::new(&large, 0.05).unwrap();
        assert!(
            small
                .validation
                .iter()
                .all(|text| large.validation.contains(text))
        );
        assert!(small.train.iter().all(|text| large.train.contains(text)));
    }

    #[test]
    fn both_sides_have_a_document_whatever_the_hashes() {
        // At 0.01 of 200 documents one side is empty by chance for about one corpus in seven.
        let mut forced = 0;
        for seed in 0..60 {
            let texts: Vec<_> = (0..200).map(|n| format!("{seed}/{n}")).collect();
            let corpus = corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            forced += usize::from(
                texts
                    .iter()
                    .all(|text| place(&blake3::hash(text.as_bytes())) >= 0.01),
            );
            let split = TextSplit::new(&corpus, 0.01).unwrap();
            assert!(!split.validation.is_empty() && !split.train.is_empty());
        }
        assert!(forced > 0, "the test never met the case it is about");
    }

    #[rstest]
    #[case::ascii("0123456789abcdefghij", 0.05, "0123456789abcdefghi", "j")]
    #[case::between_characters("aaaaaaé", 0.1, "aaaaaa", "é")]
    fn few_documents_give_their_tails(
        #[case] text: &str,
        #[case] fraction: f64,
        #[case] train: &str,
        #[case] validation: &str,
    ) {
        let corpus = corpus(&[text]);
        let split = TextSplit::new(&corpus, fraction).unwrap();
        assert_eq!(split.rule, SplitRule::Tails);
        assert_eq!(split.train, [train]);
        assert_eq!(split.validation, [validation]);
    }

    #[rstest]
    #[case(0.0)]
    #[case(1.0)]
    #[case(f64::NAN)]
    fn a_fraction_outside_zero_and_one_is_refused(#[case] fraction: f64) {
        let error = TextSplit::new(&numbered(3), fraction).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { .. }), "{error}");
    }

    #[test]
    fn a_corpus_that_cannot_be_split_is_refused() {
        let error = TextSplit::new(&corpus(&["a"]), 0.05).unwrap_err();
        assert!(matches!(error, DataError::CannotSplit { .. }), "{error}");
        // Identical texts stay together, so there is nothing to put on the other side.
        let error = TextSplit::new(&corpus(&["a"; 50]), 0.05).unwrap_err();
        assert!(matches!(error, DataError::CannotSplit { .. }), "{error}");
    }

    #[test]
    fn every_document_is_followed_by_the_end_of_document() {
        let corpus = corpus(&["aé", "b"]);
        let split = TextSplit {
            train: corpus.documents.iter().map(|d| d.text.as_str()).collect(),
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
