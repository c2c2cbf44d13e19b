//! Whether every byte of a prepared folder is what was written.

use std::fs::File;
use std::io::Read;

use super::{INDEX_FILE, Shards, Side, Width};
use crate::DataError;

const BUFFER: usize = 1 << 20;

impl Shards {
    /// Reads every file and holds its hash against the index; `read` is told of the bytes as they pass. Then the
    /// ends of documents and of tokens must rise to the ends of their shards.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or is not what was written.
    pub fn verify(&self, mut read: impl FnMut(u64)) -> Result<(), DataError> {
        for (name, record) in self.index.files() {
            let path = self.dir.join(&name);
            let mut hasher = blake3::Hasher::new();
            let refused = |source| DataError::read(&path, source);
            let mut file = File::open(&path).map_err(refused)?;
            let mut buffer = vec![0; BUFFER];
            loop {
                let count = file.read(&mut buffer).map_err(refused)?;
                if count == 0 {
                    break;
                }
                hasher.update(&buffer[..count]);
                read(count as u64);
            }
            if hasher.finalize().to_hex().as_str() != record.blake3 {
                let message =
                    format!("its hash is not the one in {INDEX_FILE}: prepare the folder again");
                return Err(DataError::shard(&path, message));
            }
        }
        for side in [Side::Train, Side::Validation] {
            for (number, shard) in self.index.side(side).iter().enumerate() {
                self.rises(side, number, Side::DOCS, shard.tokens)?;
                if side == Side::Validation {
                    self.rises(side, number, Side::ENDS, shard.bytes)?;
                }
                self.ids_are_known(side, number)?;
            }
        }
        Ok(())
    }

    /// The numbers of a file never fall, and the last is `last`.
    fn rises(&self, side: Side, number: usize, ending: &str, last: u64) -> Result<(), DataError> {
        let mut before = 0;
        self.each(side, number, ending, 8, |value| {
            let rises = value >= before;
            before = value;
            (!rises).then(|| format!("{value} comes after a larger number"))
        })?;
        if before == last {
            return Ok(());
        }
        let path = self.dir.join(side.file_name(number, ending));
        Err(DataError::shard(
            &path,
            format!("it ends with {before}: expected {last}"),
        ))
    }

    fn ids_are_known(&self, side: Side, number: usize) -> Result<(), DataError> {
        let vocab = self.index.vocab_size as u64;
        let width = match self.index.width {
            Width::U16 => 2,
            Width::U32 => 4,
        };
        self.each(side, number, Side::TOKENS, width, |id| {
            (id >= vocab).then(|| format!("token id {id} is not below `vocab_size`, {vocab}"))
        })
    }

    /// Hands each little-endian number of `width` bytes to `complain`.
    fn each(
        &self,
        side: Side,
        number: usize,
        ending: &str,
        width: usize,
        mut complain: impl FnMut(u64) -> Option<String>,
    ) -> Result<(), DataError> {
        let path = self.dir.join(side.file_name(number, ending));
        let refused = |source| DataError::read(&path, source);
        let mut file = File::open(&path).map_err(refused)?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut filled = 0;
            while filled < BUFFER {
                match file.read(&mut buffer[filled..]).map_err(refused)? {
                    0 => break,
                    count => filled += count,
                }
            }
            for bytes in buffer[..filled].chunks(width) {
                let value = bytes
                    .iter()
                    .rev()
                    .fold(0, |value, &byte| value << 8 | u64::from(byte));
                if let Some(message) = complain(value) {
                    return Err(DataError::shard(&path, message));
                }
            }
            if filled < BUFFER {
                return Ok(());
            }
        }
    }
}
