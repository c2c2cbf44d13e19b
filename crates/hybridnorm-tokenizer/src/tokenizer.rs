//! Text to token ids and back.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::TokenizerError;
use super::guard::guarded;

/// What a `tokenizer.json` may call the token that ends a document, in order of preference.
pub const END_OF_DOCUMENT_NAMES: [&str; 4] = ["<|endoftext|>", "</s>", "<eos>", "<|end_of_text|>"];
/// A larger `tokenizer.json` is none; the largest published ones have some 40 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Ids are below it: an embedding table has a row for each, and the largest published ones have some 260,000.
const MAX_VOCAB: u32 = 1 << 24;
/// The end-of-document id of the byte tokenizer: the first id after the 256 bytes.
const BYTE_END_OF_DOCUMENT: u32 = 256;

/// How text becomes token ids.
#[derive(Debug, Clone)]
pub enum Tokenizer {
    /// One id per UTF-8 byte, and 256 for the end of a document.
    Byte,
    /// A published tokenizer, read from its `tokenizer.json`.
    HuggingFace(Box<HuggingFace>),
}

/// A tokenizer of the `tokenizers` library.
#[derive(Debug, Clone)]
pub struct HuggingFace {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    /// BLAKE3 of the file, in hexadecimal.
    hash: String,
    vocab_size: usize,
    end_of_document: Option<u32>,
}

/// Token ids with the place in the text where each ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// The ids.
    pub ids: Vec<u32>,
    /// For each id, how many bytes of the text the ids up to and including it stand for. It never falls, and the
    /// last is the length of the text, so the bytes of any run of ids are a difference of two entries. Where
    /// several ids make up one character, the first is given all its bytes.
    pub ends: Vec<usize>,
}

impl Tokenizer {
    /// `byte`, or the path of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// The spec is neither, or the file is not a tokenizer.
    pub fn from_spec(spec: &str) -> Result<Self, TokenizerError> {
        if spec == "byte" {
            return Ok(Self::Byte);
        }
        let path = Path::new(spec);
        if path.is_file() {
            return Self::from_file(path);
        }
        Err(TokenizerError::Unknown {
            spec: spec.to_owned(),
        })
    }

    /// Reads a `tokenizer.json`.
    ///
    /// Truncation and padding that the file may ask for are switched off, since either would change the corpus
    /// without a word. The names of special tokens inside a text are encoded as the characters they are.
    ///
    /// # Errors
    ///
    /// The file cannot be read or is not a tokenizer with at least one token.
    pub fn from_file(path: &Path) -> Result<Self, TokenizerError> {
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|source| TokenizerError::Read {
                path: path.to_owned(),
                source,
            })?;
        Self::from_bytes(bytes, path)
    }

    /// Reads the contents of a `tokenizer.json`; `path` is what it is called.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::from_file`].
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, TokenizerError> {
        let bad = |message: String| TokenizerError::Bad {
            path: path.to_owned(),
            message,
        };
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(bad(format!("it has more than {MAX_FILE_BYTES} bytes")));
        }
        let hash = blake3::hash(&bytes).to_hex().to_string();
        // The library panics on some files that are no JSON, and on some that are.
        serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
            .map_err(|error| bad(error.to_string()))?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(bad)?;
        inner
            .with_truncation(None)
            .map_err(|error| bad(error.to_string()))?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        // Ids may have gaps, so the count of tokens is not enough for an embedding table.
        let largest = inner.get_vocab(true).into_values().max();
        let largest = largest.ok_or_else(|| bad("it has no tokens".to_owned()))?;
        if largest >= MAX_VOCAB {
            let message = format!("its largest id is {largest}: expected less than {MAX_VOCAB}");
            return Err(bad(message));
        }
        let vocab_size = largest as usize + 1;
        let end_of_document = END_OF_DOCUMENT_NAMES
            .iter()
            .find_map(|name| inner.token_to_id(name));
        Ok(Self::HuggingFace(Box::new(HuggingFace {
            inner,
            path: path.to_owned(),
            hash,
            vocab_size,
            end_of_document,
        })))
    }

    /// The ids of `text`. No special token is added.
    ///
    /// # Errors
    ///
    /// The tokenizer refuses the text; the byte tokenizer never does.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        match self {
            Self::Byte => Ok(text.bytes().map(u32::from).collect()),
            Self::HuggingFace(tokenizer) => guarded(|| tokenizer.inner.encode_fast(text, false))
                .map(|encoding| encoding.get_ids().to_vec())
                .map_err(|message| self.refusal("encode a document", message)),
        }
    }

    /// The ids of `text`, in which the names of special tokens stand for those: what a chat template makes. No other special token is added.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let Self::HuggingFace(tokenizer) = self else {
            return self.encode(text);
        };
        let mut inner = tokenizer.inner.clone();
        inner.set_encode_special_tokens(false);
        guarded(|| inner.encode_fast(text, false))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|message| self.refusal("encode a conversation", message))
    }

    /// The special tokens that the tokenizer itself puts before a text. The byte tokenizer has none.
    ///
    /// # Errors
    ///
    /// The tokenizer refuses a text.
    pub fn opening(&self) -> Result<Vec<u32>, TokenizerError> {
        let Self::HuggingFace(tokenizer) = self else {
            return Ok(Vec::new());
        };
        // A text and not an empty one: behind that, what stands after a text would look as if it stood before.
        let encoding = guarded(|| tokenizer.inner.encode("a", true))
            .map_err(|message| self.refusal("encode a text", message))?;
        let pairs = encoding.get_ids().iter();
        let pairs = pairs.zip(encoding.get_special_tokens_mask());
        let before = pairs.take_while(|(_, special)| **special == 1);
        Ok(before.map(|(id, _)| *id).collect())
    }

    /// Whether the ids from `first` on are all special tokens, which no text is turned into: see [`encode`](Self::encode).
    #[must_use]
    pub fn only_special_from(&self, first: usize) -> bool {
        match self {
            Self::Byte => first > BYTE_END_OF_DOCUMENT as usize,
            Self::HuggingFace(tokenizer) => {
                let added = tokenizer.inner.get_added_tokens_decoder();
                let vocab = tokenizer.inner.get_vocab(true);
                let mut beyond = vocab.into_values().filter(|id| *id as usize >= first);
                beyond.all(|id| added.get(&id).is_some_and(|token| token.special))
            }
        }
    }

    /// The ids of `text`, and how many of its UTF-8 bytes stand behind each.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    pub fn encode_with_ends(&self, text: &str) -> Result<Encoding, TokenizerError> {
        match self {
            Self::Byte => Ok(Encoding {
                ids: self.encode(text)?,
                ends: (1..=text.len()).collect(),
            }),
            Self::HuggingFace(tokenizer) => {
                let encoding = guarded(|| tokenizer.inner.encode(text, false))
                    .map_err(|message| self.refusal("encode a document", message))?;
                let mut reached = 0;
                let mut ends: Vec<usize> = encoding
                    .get_offsets()
                    .iter()
                    .map(|&(_, end)| {
                        reached = reached.max(end.min(text.len()));
                        reached
                    })
                    .collect();
                if let Some(last) = ends.last_mut() {
                    *last = text.len();
                }
                Ok(Encoding {
                    ids: encoding.get_ids().to_vec(),
                    ends,
                })
            }
        }
    }

    /// The text of `ids`. The byte tokenizer drops ids above 255 and puts U+FFFD for bytes that are not UTF-8;
    /// a published tokenizer drops its special tokens.
    ///
    /// # Errors
    ///
    /// The tokenizer's decoder refuses the ids; the byte tokenizer never does.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        match self {
            Self::Byte => {
                let bytes: Vec<u8> = ids.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Self::HuggingFace(tokenizer) => guarded(|| tokenizer.inner.decode(ids, true))
                .map_err(|message| self.refusal("decode ids", message)),
        }
    }

    /// One more than the largest id, which is what an embedding table needs.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Byte => BYTE_END_OF_DOCUMENT as usize + 1,
            Self::HuggingFace(tokenizer) => tokenizer.vocab_size,
        }
    }

    /// The id that follows every document: 256 for bytes; otherwise that of the first of `<|endoftext|>`, `</s>`,
    /// `<eos>` and `<|end_of_text|>` that the tokenizer knows.
    ///
    /// # Errors
    ///
    /// The tokenizer knows none of them.
    pub fn end_of_document(&self) -> Result<u32, TokenizerError> {
        match self {
            Self::Byte => Ok(BYTE_END_OF_DOCUMENT),
            Self::HuggingFace(tokenizer) => {
                tokenizer
                    .end_of_document
                    .ok_or_else(|| TokenizerError::NoEndOfDocument {
                        path: tokenizer.path.clone(),
                        looked_for: END_OF_DOCUMENT_NAMES.join(", "),
                    })
            }
        }
    }

    /// What the token with this id is called; `None` where there is none, and for bytes.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        match self {
            Self::Byte => None,
            Self::HuggingFace(tokenizer) => tokenizer.inner.id_to_token(id),
        }
    }

    /// The spec that gives this tokenizer back: `byte`, or the path of its file.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Byte => "byte".to_owned(),
            Self::HuggingFace(tokenizer) => tokenizer.path.display().to_string(),
        }
    }

    /// What tells this tokenizer from every other, wherever its file lies: `byte`, or the hash of the file.
    pub fn identity(&self) -> String {
        match self {
            Self::Byte => "byte".to_owned(),
            Self::HuggingFace(tokenizer) => format!("tokenizer {}", tokenizer.hash),
        }
    }

    /// The `tokenizer.json` it was read from.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Byte => None,
            Self::HuggingFace(tokenizer) => Some(&tokenizer.path),
        }
    }

    fn refusal(&self, action: &'static str, message: String) -> TokenizerError {
        TokenizerError::Tokenize {
            name: self.name(),
            action,
            message,
        }
    }
}

#[cfg(test)]
mod tests;
