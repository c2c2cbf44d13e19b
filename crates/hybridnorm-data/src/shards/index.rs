//! `index.json`: what a prepared folder holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{INDEX_FILE, TOKENIZER_FILE, Width};
use crate::DataError;

/// The format that this program writes, and the only one it reads.
const FORMAT: u32 = 1;
/// An index larger than this is none: a shard takes some 400 bytes of it.
const MAX_INDEX_BYTES: u64 = 256 << 20;

/// What a prepared folder holds, and from what it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// 1.
    pub format: u32,
    /// What the ids mean.
    pub tokenizer: TokenizerRecord,
    /// Ids are below it.
    pub vocab_size: usize,
    /// Bytes of an id.
    pub width: Width,
    /// The id after every document.
    pub end_of_document: u32,
    /// The share of documents that was held out, by the hash of their text.
    pub validation_fraction: f64,
    /// Tokens after which a shard was closed.
    pub shard_tokens: u64,
    /// UTF-8 bytes that a document was allowed to have.
    pub max_document_bytes: usize,
    /// Documents that were dropped because their text had come before; none is dropped where this is absent.
    pub duplicates: Option<u64>,
    /// Documents that were dropped because they are blank.
    pub blank: u64,
    /// What was read, in order.
    pub inputs: Vec<Input>,
    /// The shards to learn from.
    pub train: Vec<Shard>,
    /// The shards to be scored on.
    pub validation: Vec<Shard>,
}

/// A tokenizer by what tells it from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenizerRecord {
    /// [`Tokenizer::identity`](crate::Tokenizer::identity).
    pub identity: String,
    /// The copy of its file; absent for the byte tokenizer.
    pub file: Option<FileRecord>,
}

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// [`InputFile::name`](crate::InputFile::name).
    pub name: String,
    /// Its size on disk.
    pub bytes: u64,
}

/// A part of one side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Number of tokens, the ends of documents among them.
    pub tokens: u64,
    /// Number of documents.
    pub documents: u64,
    /// UTF-8 bytes of their text.
    pub bytes: u64,
    /// Each of its files, by the ending of its name.
    pub files: BTreeMap<String, FileRecord>,
}

/// A file of the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Its size.
    pub bytes: u64,
    /// Its hash, in hexadecimal.
    pub blake3: String,
}

/// What a shard is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// To learn from.
    Train,
    /// To be scored on.
    Validation,
}

impl Side {
    pub(crate) const TOKENS: &'static str = "tokens";
    pub(crate) const DOCS: &'static str = "docs";
    pub(crate) const ENDS: &'static str = "ends";
    pub(crate) const TEXT: &'static str = "text";

    /// The endings of the names of a shard's files.
    pub(crate) fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Train => &[Self::TOKENS, Self::DOCS],
            Self::Validation => &[Self::TOKENS, Self::DOCS, Self::ENDS, Self::TEXT],
        }
    }

    pub(crate) fn file_name(self, number: usize, ending: &str) -> String {
        let side = match self {
            Self::Train => "train",
            Self::Validation => "validation",
        };
        format!("{side}-{number:05}.{ending}")
    }
}

impl Shard {
    /// Bytes that the file of this ending must have.
    fn expected_bytes(&self, ending: &str, width: Width) -> Option<u64> {
        match ending {
            Side::TOKENS => self.tokens.checked_mul(width.bytes()),
            Side::DOCS => self.documents.checked_mul(8),
            Side::ENDS => self.tokens.checked_mul(8),
            Side::TEXT => Some(self.bytes),
            _ => None,
        }
    }
}

impl Index {
    /// The format of a folder that is made now.
    pub(crate) fn format() -> u32 {
        FORMAT
    }

    /// The shards of one side.
    #[must_use]
    pub fn side(&self, side: Side) -> &[Shard] {
        match side {
            Side::Train => &self.train,
            Side::Validation => &self.validation,
        }
    }

    /// Tokens, documents and UTF-8 bytes of one side.
    #[must_use]
    pub fn totals(&self, side: Side) -> [u64; 3] {
        self.side(side).iter().fold([0; 3], |[t, d, b], shard| {
            [
                t.saturating_add(shard.tokens),
                d.saturating_add(shard.documents),
                b.saturating_add(shard.bytes),
            ]
        })
    }

    /// Every file of the folder but the index, with its name.
    pub(crate) fn files(&self) -> impl Iterator<Item = (String, &FileRecord)> {
        let copy = self.tokenizer.file.iter();
        let copy = copy.map(|file| (TOKENIZER_FILE.to_owned(), file));
        let shards = [Side::Train, Side::Validation]
            .into_iter()
            .flat_map(|side| {
                let shards = self.side(side).iter().enumerate();
                shards.flat_map(move |(number, shard)| {
                    let files = shard.files.iter();
                    files.map(move |(ending, file)| (side.file_name(number, ending), file))
                })
            });
        copy.chain(shards)
    }

    /// The index of the folder `dir`, and the BLAKE3 of its file.
    pub(super) fn read(dir: &Path) -> Result<(Self, String), DataError> {
        let path = dir.join(INDEX_FILE);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_INDEX_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|source| DataError::read(&path, source))?;
        let bad = |message: String| DataError::shard(&path, message);
        if bytes.len() as u64 > MAX_INDEX_BYTES {
            return Err(bad(format!("it has more than {MAX_INDEX_BYTES} bytes")));
        }
        let index: Self = serde_json::from_slice(&bytes)
            .map_err(|error| bad(format!("not an index of this program: {error}")))?;
        index.check().map_err(bad)?;
        Ok((index, blake3::hash(&bytes).to_hex().to_string()))
    }

    /// Whether the numbers agree with each other.
    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            let format = self.format;
            return Err(format!("`format` is {format}: expected {FORMAT}"));
        }
        let end = self.end_of_document;
        if end as usize >= self.vocab_size {
            let vocab = self.vocab_size;
            return Err(format!(
                "`end_of_document` is {end}: expected less than `vocab_size`, {vocab}"
            ));
        }
        if self.width != Width::for_vocab(self.vocab_size) {
            return Err("`width` does not suit `vocab_size`".to_owned());
        }
        for side in [Side::Train, Side::Validation] {
            for (number, shard) in self.side(side).iter().enumerate() {
                let name = side.file_name(number, "*");
                let text_and_ends = shard.bytes.checked_add(shard.documents);
                if shard.documents == 0 || text_and_ends.is_none() || shard.tokens < shard.documents
                {
                    return Err(format!(
                        "{name}: not every document has an end among its tokens"
                    ));
                }
                if !shard
                    .files
                    .keys()
                    .map(String::as_str)
                    .eq(sorted(side.endings()))
                {
                    return Err(format!("{name}: expected the files {:?}", side.endings()));
                }
                for (ending, file) in &shard.files {
                    if shard.expected_bytes(ending, self.width) != Some(file.bytes) {
                        let bytes = file.bytes;
                        return Err(format!(
                            "{name}: {bytes} bytes of `{ending}` do not fit its tokens and documents"
                        ));
                    }
                }
            }
            let sum = |count: fn(&Shard) -> u64| {
                let mut shards = self.side(side).iter();
                shards.try_fold(0u64, |sum, shard| sum.checked_add(count(shard)))
            };
            let sums = [sum(|s| s.tokens), sum(|s| s.documents), sum(|s| s.bytes)];
            if sums.contains(&None) {
                return Err("the sizes of the shards have no sum below 2^64".to_owned());
            }
        }
        Ok(())
    }
}

fn sorted(endings: &[&'static str]) -> std::vec::IntoIter<&'static str> {
    let mut endings = endings.to_vec();
    endings.sort_unstable();
    endings.into_iter()
}
