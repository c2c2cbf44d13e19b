//! The held-out side of a prepared folder.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::token_files::read_at;
use super::{Shards, Side, TokenFiles};
use crate::{DataError, HeldOut, TokenSource};

/// Held-out tokens on disk, with the text behind each.
#[derive(Debug)]
pub struct ShardedHeldOut {
    tokens: TokenFiles,
    shards: Shards,
}

impl ShardedHeldOut {
    pub(super) fn new(shards: &Shards) -> Self {
        Self {
            tokens: shards.tokens(Side::Validation),
            shards: shards.clone(),
        }
    }

    /// The bytes behind the tokens `range` of shard `number`, counted from its first.
    fn text_of(&self, number: usize, range: Range<u64>) -> Result<Vec<u8>, DataError> {
        let at = |ending| {
            let name = Side::Validation.file_name(number, ending);
            self.shards.dir.join(name)
        };
        let (ends, text) = (at(Side::ENDS), at(Side::TEXT));
        let before = |position: u64| match position.checked_sub(1) {
            None => Ok(0),
            Some(last) => {
                let mut end = [0; 8];
                read(&ends, &mut end, last * 8)?;
                Ok(u64::from_le_bytes(end))
            }
        };
        let (from, to) = (before(range.start)?, before(range.end)?);
        if from > to || to > self.shards.index.validation[number].bytes {
            let message = format!(
                "tokens {range:?} end at bytes {from} and {to} of the text: prepare the folder again"
            );
            return Err(DataError::shard(&ends, message));
        }
        let mut bytes = vec![0; (to - from) as usize];
        read(&text, &mut bytes, from)?;
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
        for (number, shard) in self.shards.index.validation.iter().enumerate() {
            let end = start + shard.tokens;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                text.extend(self.text_of(number, from - start..to - start)?);
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
