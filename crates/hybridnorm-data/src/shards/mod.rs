//! A prepared folder: token ids on disk, in files that are read by position.
//!
//! ```text
//! index.json               what the folder holds, and the BLAKE3 of each file
//! tokenizer.json           the tokenizer, unless it is the byte tokenizer
//! train-00000.tokens       token ids, u16 or u32, little-endian, no header
//! train-00000.docs         for each document the position after its end-of-document id, u64, from 0 in each shard
//! validation-00000.tokens
//! validation-00000.docs
//! validation-00000.ends    for each token, how many bytes of text the tokens up to and including it stand for, u64
//! validation-00000.text    the documents' bytes, one after the other
//! ```
//!
//! Files are read at a position with one call of the operating system, and not mapped into memory: when a mapped file
//! is cut short under a running job, the next look at it kills the process (SIGBUS), and no error can be told. A read of
//! one sequence costs a few microseconds once the pages are cached, which no step notices (docs/data.md).

mod held_out;
mod index;
mod new_file;
mod token_files;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DataError, TokenSource, Tokenizer};
pub use held_out::ShardedHeldOut;
pub use index::{FileRecord, Index, Input, Shard, Side, TokenizerRecord};
pub(crate) use new_file::{NewFile, sync_directory, write_whole};
pub use token_files::{TokenFiles, Width};

/// The file that makes a folder a prepared one.
pub const INDEX_FILE: &str = "index.json";
/// The copy of a published tokenizer.
pub(crate) const TOKENIZER_FILE: &str = "tokenizer.json";

/// A prepared folder that is open. Its index is sound and its files have the sizes they must have.
#[derive(Debug, Clone)]
pub struct Shards {
    dir: PathBuf,
    index: Index,
    identity: String,
}

impl Shards {
    /// Whether `path` is a prepared folder, sound or not.
    #[must_use]
    pub fn is_prepared(path: &Path) -> bool {
        path.join(INDEX_FILE).is_file()
    }

    /// Opens the folder `dir`: reads its index and looks at the size of every file.
    ///
    /// # Errors
    ///
    /// The index cannot be read, contradicts itself or is of another format; or a file is missing or has another size.
    pub fn open(dir: &Path) -> Result<Self, DataError> {
        if !Self::is_prepared(dir) {
            let message = "it is no prepared folder, which has an index.json: `prepare` makes one";
            return Err(DataError::shard(dir, message));
        }
        let (index, identity) = Index::read(dir)?;
        for (name, record) in index.files() {
            let path = dir.join(name);
            let found = std::fs::metadata(&path)
                .map_err(|source| DataError::read(&path, source))?
                .len();
            if found != record.bytes {
                let expected = record.bytes;
                return Err(DataError::shard(
                    &path,
                    format!(
                        "it has {found} bytes, and {expected} in {INDEX_FILE}: prepare the folder again"
                    ),
                ));
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            index,
            identity,
        })
    }

    /// What the folder says about itself.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Where it lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// BLAKE3 of `index.json`, which holds those of all files: what tells this data from any other.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The tokenizer the folder was prepared with.
    ///
    /// # Errors
    ///
    /// The copy of its file is missing, damaged or another tokenizer's.
    pub fn tokenizer(&self) -> Result<Tokenizer, DataError> {
        let record = &self.index.tokenizer;
        if record.file.is_none() {
            return Ok(Tokenizer::Byte);
        }
        let path = self.dir.join(TOKENIZER_FILE);
        let tokenizer = Tokenizer::from_file(&path)?;
        if tokenizer.identity() != record.identity {
            let message = format!("it is not the tokenizer that {INDEX_FILE} names");
            return Err(DataError::shard(&path, message));
        }
        Ok(tokenizer)
    }

    /// The training tokens.
    #[must_use]
    pub fn train(&self) -> Arc<dyn TokenSource> {
        let shards = self.index.train.iter().enumerate();
        let files = shards.map(|(number, shard)| {
            let name = Side::Train.file_name(number, Side::TOKENS);
            (self.dir.join(name), shard.tokens)
        });
        Arc::new(TokenFiles::new(files, self.index.width))
    }
}
