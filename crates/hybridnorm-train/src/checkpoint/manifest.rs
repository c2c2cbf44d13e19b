//! `manifest.json`: size and BLAKE3 hash of every other file of a generation. Written last, so a generation without
//! a manifest was never finished.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{CheckpointError, Damage};

/// The manifest's file name.
pub const MANIFEST: &str = "manifest.json";
/// The version of the layout that this program writes and reads.
pub const FORMAT: u32 = 1;
/// A manifest longer than this is refused unread.
const MAX_BYTES: u64 = 1 << 20;
/// Bytes from which on two cores share the work on a piece: a tenth of a millisecond of it.
const SHARED: usize = 1 << 18;

/// What a generation consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// Every file but the manifest.
    pub files: Vec<FileEntry>,
}

/// One file of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the generation's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The hash of its content, in hexadecimal.
    pub blake3: String,
}

impl Manifest {
    /// Reads the manifest of the generation in `dir` and holds every file against it.
    ///
    /// # Errors
    /// [`CheckpointError::Damaged`] names all that is wrong, the manifest itself included.
    pub fn verify(dir: &Path) -> Result<Self, CheckpointError> {
        let damaged = |damages| CheckpointError::Damaged {
            dir: dir.to_path_buf(),
            damages,
        };
        let manifest = Self::read(dir).map_err(|damage| damaged(vec![damage]))?;
        let damages: Vec<Damage> = manifest
            .files
            .iter()
            .filter_map(|entry| entry.check(dir).err())
            .collect();
        if damages.is_empty() {
            Ok(manifest)
        } else {
            Err(damaged(damages))
        }
    }

    fn read(dir: &Path) -> Result<Self, Damage> {
        let unreadable = |reason: String| Damage::Unreadable {
            file: MANIFEST.to_string(),
            reason,
        };
        let file = File::open(dir.join(MANIFEST)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Damage::Missing {
                file: MANIFEST.to_string(),
            },
            _ => unreadable(error.to_string()),
        })?;
        let mut text = String::new();
        let read = file.take(MAX_BYTES).read_to_string(&mut text);
        read.map_err(|error| unreadable(error.to_string()))?;
        let manifest: Self =
            serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
        if manifest.format != FORMAT {
            let reason = format!("format {} where {FORMAT} is understood", manifest.format);
            return Err(unreadable(reason));
        }
        Ok(manifest)
    }

    /// Whether the generation has a file called `name`.
    pub(super) fn lists(&self, name: &str) -> bool {
        self.files.iter().any(|entry| entry.name == name)
    }
}

impl FileEntry {
    fn check(&self, dir: &Path) -> Result<(), Damage> {
        let file = || self.name.clone();
        let unreadable = |error: io::Error| Damage::Unreadable {
            file: file(),
            reason: error.to_string(),
        };
        if Path::new(&self.name).file_name() != Some(self.name.as_ref()) {
            let reason = "not a plain file name".to_string();
            let file = file();
            return Err(Damage::Unreadable { file, reason });
        }
        let path = dir.join(&self.name);
        let found = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Damage::Missing { file: file() });
            }
            Err(error) => return Err(unreadable(error)),
        };
        if found != self.bytes {
            return Err(Damage::Size {
                file: file(),
                expected: self.bytes,
                found,
            });
        }
        let mut hasher = blake3::Hasher::new();
        let content = File::open(&path).map_err(unreadable)?;
        hasher.update_reader(content).map_err(unreadable)?;
        if hasher.finalize().to_hex().as_str() == self.blake3 {
            Ok(())
        } else {
            Err(Damage::Hash { file: file() })
        }
    }
}

/// A new file whose size and hash are taken of what was meant to be written, on its way to the disk.
pub(super) struct HashedFile {
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl HashedFile {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create_new(path)?,
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    /// Of a large piece, one core hashes what another gives to the system.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        let (file, hasher) = (&mut self.file, &mut self.hasher);
        if bytes.len() < SHARED {
            hasher.update(bytes);
            return file.write_all(bytes);
        }
        let hash = || {
            hasher.update(bytes);
        };
        rayon::join(|| file.write_all(bytes), hash).0
    }

    /// The file, which may not have reached the disk yet.
    pub(super) fn finish(self, name: &str) -> Written {
        let entry = FileEntry {
            name: name.to_string(),
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
        };
        let file = self.file;
        Written { file, entry }
    }
}

/// A file that is written but for the disk.
pub(super) struct Written {
    file: File,
    entry: FileEntry,
}

impl Written {
    /// Waits until the file is on the disk itself, and returns its entry.
    pub(super) fn sync(self, dir: &Path) -> Result<FileEntry, CheckpointError> {
        let synced = self.file.sync_all();
        synced.map_err(CheckpointError::io("sync", &dir.join(&self.entry.name)))?;
        Ok(self.entry)
    }
}

/// Writes `content` as `dir/name`, to the disk itself.
pub(super) fn write_file(
    dir: &Path,
    name: &str,
    content: &[u8],
) -> Result<FileEntry, CheckpointError> {
    let path = dir.join(name);
    let write = || {
        let mut file = HashedFile::create(&path)?;
        file.write(content)?;
        Ok(file.finish(name))
    };
    let written = write().map_err(CheckpointError::io("write", &path))?;
    written.sync(dir)
}

/// Flushes a folder's list of names to the disk, where the system can.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}
