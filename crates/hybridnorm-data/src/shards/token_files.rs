//! Files of token ids, one after the other.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::input::files_matching;
use crate::{DataError, TokenSource};

/// Files beyond this many are opened for each read, since a process may hold some thousand open.
const KEPT_OPEN: usize = 512;
/// Tokens at either end of a file that tell it from others.
const FINGERPRINT_TOKENS: u64 = 16 << 10;
/// The first bytes of an array that NumPy saved with its header.
const NUMPY_MAGIC: &[u8] = b"\x93NUMPY";

/// How many bytes an id takes on disk; always little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

impl Width {
    /// Two bytes where every id of the vocabulary fits.
    #[must_use]
    pub fn for_vocab(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 {
            Self::U16
        } else {
            Self::U32
        }
    }

    /// Bytes per id.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }
}

/// Token ids in files without a header, read as one sequence.
#[derive(Debug)]
pub struct TokenFiles {
    width: Width,
    files: Vec<TokenFile>,
    /// Where each file begins in the sequence, and at last where the sequence ends.
    starts: Vec<u64>,
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    open: OnceLock<File>,
}

impl TokenFiles {
    /// The files as they are, each with as many tokens as it is said to have.
    pub(super) fn new(files: impl Iterator<Item = (PathBuf, u64)>, width: Width) -> Self {
        let mut starts = vec![0];
        let mut reached = 0u64;
        let files = files
            .map(|(path, tokens)| {
                reached = reached.saturating_add(tokens);
                starts.push(reached);
                TokenFile {
                    path,
                    open: OnceLock::new(),
                }
            })
            .collect();
        Self {
            width,
            files,
            starts,
        }
    }

    /// Token files of another program, such as those that OLMo publishes: `.npy` by name, bare ids of `width` by
    /// content. `path` is a file or a pattern, whose files are read in the order of their names.
    ///
    /// # Errors
    ///
    /// Nothing stands there, a file is no whole number of ids, or one has the header of a real `.npy` file.
    pub fn raw(path: &Path, width: Width) -> Result<Self, DataError> {
        let mut files = Vec::new();
        for path in raw_paths(path)? {
            let refused = |source| DataError::read(&path, source);
            let file = File::open(&path).map_err(refused)?;
            let bytes = file.metadata().map_err(refused)?.len();
            let mut head = [0; NUMPY_MAGIC.len()];
            if bytes >= head.len() as u64 {
                read_at(&file, &mut head, 0).map_err(refused)?;
            }
            if head == *NUMPY_MAGIC {
                let message =
                    "it has NumPy's header, so it is not the bare ids that OLMo's `.npy` files are";
                return Err(DataError::shard(&path, message));
            }
            if !bytes.is_multiple_of(width.bytes()) {
                let message = format!("{bytes} bytes are no whole number of {width:?} ids");
                return Err(DataError::shard(&path, message));
            }
            files.push((path, bytes / width.bytes()));
        }
        Ok(Self::new(files.into_iter(), width))
    }

    /// What tells these files from others: BLAKE3 over the length of each and its first and last 16,384 ids. Not over all of
    /// it, which can be terabytes.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn fingerprint(&self) -> Result<String, DataError> {
        let mut hasher = blake3::Hasher::new();
        for (number, bounds) in self.starts.windows(2).enumerate() {
            let tokens = bounds[1] - bounds[0];
            let mut ids = vec![0; tokens.min(FINGERPRINT_TOKENS) as usize];
            hasher.update(&tokens.to_le_bytes());
            for start in [0, tokens - ids.len() as u64] {
                self.read_file(number, start, &mut ids)?;
                for id in &ids {
                    hasher.update(&id.to_le_bytes());
                }
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

fn raw_paths(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let bad = |message: String| DataError::BadPattern {
        pattern: path.display().to_string(),
        message,
    };
    let pattern = path
        .to_str()
        .ok_or_else(|| bad("it is not UTF-8".to_owned()))?;
    let mut paths = files_matching(pattern)?;
    if paths.is_empty() {
        return Err(bad(
            "no file of token ids stands there or matches".to_owned()
        ));
    }
    paths.sort();
    Ok(paths)
}

impl TokenSource for TokenFiles {
    fn tokens(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    fn read(&self, start: u64, ids: &mut [u32]) -> Result<(), DataError> {
        let mut position = start;
        let mut rest = ids;
        while !rest.is_empty() {
            // The last file that begins at or before the position; empty files are passed over.
            let file = self.starts.partition_point(|&start| start <= position) - 1;
            let run = (self.starts[file + 1] - position).min(rest.len() as u64) as usize;
            let (now, later) = rest.split_at_mut(run);
            self.read_file(file, position - self.starts[file], now)?;
            position += run as u64;
            rest = later;
        }
        Ok(())
    }
}

impl TokenFiles {
    fn read_file(&self, number: usize, start: u64, ids: &mut [u32]) -> Result<(), DataError> {
        let path = &self.files[number].path;
        let mut bytes = vec![0; ids.len() * self.width.bytes() as usize];
        let offset = start * self.width.bytes();
        let mut read = |file: &File| read_at(file, &mut bytes, offset);
        let result = if number < KEPT_OPEN {
            self.files[number].kept_open().and_then(read)
        } else {
            File::open(path).and_then(|file| read(&file))
        };
        result.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => DataError::shard(
                path,
                format!(
                    "it ends before byte {}: it was cut short after it was opened",
                    offset + bytes.len() as u64
                ),
            ),
            _ => DataError::read(path, source),
        })?;
        match self.width {
            Width::U16 => {
                for (id, &pair) in ids.iter_mut().zip(bytes.as_chunks().0) {
                    *id = u32::from(u16::from_le_bytes(pair));
                }
            }
            Width::U32 => {
                for (id, &four) in ids.iter_mut().zip(bytes.as_chunks().0) {
                    *id = u32::from_le_bytes(four);
                }
            }
        }
        Ok(())
    }
}

impl TokenFile {
    fn kept_open(&self) -> io::Result<&File> {
        if let Some(file) = self.open.get() {
            return Ok(file);
        }
        let file = File::open(&self.path)?;
        // Another thread may have been faster; its file is as good.
        Ok(self.open.get_or_init(|| file))
    }
}

/// Fills `into` from `offset` on, without moving the file's own position.
pub(super) fn read_at(file: &File, into: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, into, offset);
    #[cfg(windows)]
    {
        use std::os::windows::fs::FileExt;
        let (mut into, mut offset) = (into, offset);
        while !into.is_empty() {
            match file.seek_read(into, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    into = &mut into[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, bytes: &[u8]) {
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    #[test]
    fn files_are_read_as_one_sequence_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "part-1.npy", &[4, 0, 5, 1]);
        write(dir.path(), "part-0.npy", &[1, 0, 2, 0, 3, 0]);
        write(dir.path(), "part-2.npy", &[]);
        write(dir.path(), "part-3.npy", &[6, 0]);
        let files = TokenFiles::raw(&dir.path().join("part-*.npy"), Width::U16).unwrap();
        assert_eq!(files.tokens(), 6);
        assert_eq!(files.window(0, 7).unwrap(), [1, 2, 3, 4, 261, 6, 1]);
        assert_eq!(files.window(4, 2).unwrap(), [261, 6]);
        let wide = TokenFiles::raw(&dir.path().join("part-1.npy"), Width::U32).unwrap();
        assert_eq!(wide.window(0, 1).unwrap(), [0x0105_0004]);
    }

    #[test]
    fn files_are_told_apart_by_length_beginning_and_end_wherever_they_lie() {
        let dir = tempfile::tempdir().unwrap();
        let fingerprint = |name: &str, bytes: &[u8]| {
            write(dir.path(), name, bytes);
            let files = TokenFiles::raw(&dir.path().join(name), Width::U16).unwrap();
            files.fingerprint().unwrap()
        };
        let mut bytes = vec![0; 100_000];
        let first = fingerprint("a", &bytes);
        assert_eq!(fingerprint("b", &bytes), first);
        assert_ne!(fingerprint("b", &bytes[2..]), first);
        bytes[99_999] = 1;
        assert_ne!(fingerprint("b", &bytes), first);
    }

    #[test]
    fn what_is_no_file_of_ids_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "odd.bin", &[1, 2, 3]);
        write(dir.path(), "real.npy", b"\x93NUMPY\x01\x00");
        let raw = |name: &str| TokenFiles::raw(&dir.path().join(name), Width::U16).unwrap_err();
        assert!(
            raw("odd.bin")
                .to_string()
                .contains("3 bytes are no whole number")
        );
        assert!(raw("real.npy").to_string().contains("NumPy's header"));
        assert!(
            raw("none*.npy")
                .to_string()
                .contains("no file of token ids")
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_file_cut_short_under_a_reader_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a.bin", &[0; 4096]);
        let path = dir.path().join("a.bin");
        let files = TokenFiles::raw(&path, Width::U16).unwrap();
        files.window(0, 10).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(100)
            .unwrap();
        assert!(files.window(0, 50).is_ok());
        let error = files.window(0, 51).unwrap_err().to_string();
        assert!(
            error.contains("a.bin") && error.contains("cut short"),
            "{error}"
        );
    }
}
