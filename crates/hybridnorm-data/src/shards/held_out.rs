//! The held-out side of a prepared folder.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::token_files::read_at;
use super::{Shards, Side, TokenFiles, Width};
use crate::{DataError, HeldOut, TokenSource};

/// Held-out tokens on disk, with the text behind each.
#[derive(Debug)]
pub struct ShardedHeldOut {
    tokens: TokenFiles,
    shards: Vec<HeldOutShard>,
}

#[derive(Debug)]
struct HeldOutShard {
    ends: PathBuf,
    text: PathBuf,
    tokens: u64,
    bytes: u64,
}

impl ShardedHeldOut {
    /// The held-out sides of all `folders`, one after the other.
    ///
    /// # Errors
    ///
    /// The folders have ids of different widths.
    pub fn of(folders: &[&Shards]) -> Result<Self, DataError> {
        let width = folders
            .first()
            .map_or(Width::U16, |folder| folder.index.width);
        if let Some(other) = folders.iter().find(|folder| folder.index.width != width) {
            let message = format!("its ids are not {width:?}, as those of the first source are");
            return Err(DataError::shard(&other.dir, message));
        }
        let numbered = folders.iter().flat_map(|folder| {
            let shards = folder.index.validation.iter().enumerate();
            shards.map(move |(number, shard)| {
                let at = move |ending| folder.dir.join(Side::Validation.file_name(number, ending));
                (at, shard)
            })
        });
        let files = numbered
            .clone()
            .map(|(at, shard)| (at(Side::TOKENS), shard.tokens));
        Ok(Self {
            tokens: TokenFiles::new(files, width),
            shards: numbered
                .map(|(at, shard)| HeldOutShard {
                    ends: at(Side::ENDS),
                    text: at(Side::TEXT),
                    tokens: shard.tokens,
                    bytes: shard.bytes,
                })
                .collect(),
        })
    }
}

impl HeldOutShard {
    /// The bytes behind the tokens `range`, counted from the first of the shard.
    fn text_of(&self, range: Range<u64>) -> Result<Vec<u8>, DataError> {
        let before = |position: u64| match position.checked_sub(1) {
            None => Ok::<u64, DataError>(0),
            Some(last) => {
                let mut end = [0; 8];
                read(&self.ends, &mut end, last * 8)?;
                Ok(u64::from_le_bytes(end))
            }
        };
        let (from, to) = (before(range.start)?, before(range.end)?);
        if from > to || to > self.bytes {
            let message = format!(
                "tokens {range:?} end at bytes {from} and {to} of the text: prepare the folder again"
            );
            return Err(DataError::shard(&self.ends, message));
        }
        let mut bytes = vec![0; (to - from) as usize];
        read(&self.text, &mut bytes, from)?;
        Ok(bytes)
    }
}

impl HeldOut for ShardedHeldOut {
    fn tokens(&self) -> &dyn TokenSource {
        &self.tokens
    }

    fn text(&self, range: Range<u64>) -> Result<Vec<u8>, DataError> {
        let mut text = Vec::new();
        let mut start = 0;
        for shard in &self.shards {
            let end = start + shard.tokens;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                text.extend(shard.text_of(from - start..to - start)?);
            }
            start = end;
        }
        Ok(text)
    }
}

fn read(path: &Path, into: &mut [u8], offset: u64) -> Result<(), DataError> {
    File::open(path)
        .and_then(|file| read_at(&file, into, offset))
        .map_err(|source| DataError::read(path, source))
}
