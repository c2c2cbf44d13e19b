//! Files that stand under their name whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::FileRecord;
use crate::DataError;

const BUFFER: usize = 1 << 20;

/// A file being written aside, under its name with `.part`, and hashed on the way.
pub(crate) struct NewFile {
    path: PathBuf,
    aside: PathBuf,
    writer: BufWriter<File>,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl NewFile {
    pub(crate) fn create(path: PathBuf) -> Result<Self, DataError> {
        let mut aside = path.clone().into_os_string();
        aside.push(".part");
        let aside = PathBuf::from(aside);
        let file = File::create(&aside).map_err(|source| DataError::write(&aside, source))?;
        Ok(Self {
            path,
            aside,
            writer: BufWriter::with_capacity(BUFFER, file),
            hasher: blake3::Hasher::new(),
            bytes: 0,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), DataError> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.writer
            .write_all(bytes)
            .map_err(|source| DataError::write(&self.aside, source))
    }

    /// Brings all of it to disk, then gives the file its name. The name is lasting after [`sync_directory`].
    pub(crate) fn finish(self) -> Result<FileRecord, DataError> {
        let refused = |source| DataError::write(&self.aside, source);
        let file = self
            .writer
            .into_inner()
            .map_err(|error| refused(error.into_error()))?;
        file.sync_all().map_err(refused)?;
        fs::rename(&self.aside, &self.path).map_err(refused)?;
        Ok(FileRecord {
            bytes: self.bytes,
            blake3: self.hasher.finalize().to_hex().to_string(),
        })
    }
}

/// Writes a whole file aside, brings it to disk and gives it its name.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<FileRecord, DataError> {
    let mut file = NewFile::create(path.to_owned())?;
    file.write(bytes)?;
    let record = file.finish()?;
    match path.parent() {
        // A bare name lies in the current directory.
        Some(dir) if dir.as_os_str().is_empty() => sync_directory(Path::new("."))?,
        Some(dir) => sync_directory(dir)?,
        None => {}
    }
    Ok(record)
}

/// Brings the names in `dir` to disk.
pub(crate) fn sync_directory(dir: &Path) -> Result<(), DataError> {
    // Windows does so by itself, and opens no directory.
    let synced = if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all())
    } else {
        io::Result::Ok(())
    };
    synced.map_err(|source| DataError::write(dir, source))
}
