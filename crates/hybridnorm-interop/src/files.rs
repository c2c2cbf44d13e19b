//! Where the files of a checkpoint lie: in a folder, or in memory where there is no file system, as in a browser.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::{InteropError, format_error};
use crate::tensors::TensorFile;

/// A JSON or YAML file longer than this is refused unread: the index of a model with 100,000 tensors has 10 MB.
const MAX_SMALL: u64 = 256 << 20;

/// Files by name.
#[derive(Debug)]
pub(crate) enum Files {
    /// In this folder.
    Folder(PathBuf),
    /// In memory.
    Held(BTreeMap<String, Vec<u8>>),
}

impl Files {
    /// What a file is called in messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The folder; empty in memory.
    pub(crate) fn dir(&self) -> &Path {
        match self {
            Self::Folder(dir) => dir,
            Self::Held(_) => Path::new(""),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Folder(dir) => dir.join(name).is_file(),
            Self::Held(files) => files.contains_key(name),
        }
    }

    /// Reads a JSON file.
    pub(crate) fn json<T: DeserializeOwned>(
        &self,
        name: &str,
        expected: &'static str,
    ) -> Result<T, InteropError> {
        let path = self.path(name);
        let parsed = match self {
            Self::Folder(_) => serde_json::from_slice(&read_small(&path, expected)?),
            Self::Held(files) => {
                let text = files.get(name).ok_or_else(|| absent(&path))?;
                serde_json::from_slice(text)
            }
        };
        parsed.map_err(|error| format_error(&path, expected, error.to_string()))
    }

    /// Reads a text file.
    pub(crate) fn text(&self, name: &str, expected: &'static str) -> Result<String, InteropError> {
        let path = self.path(name);
        let text = match self {
            Self::Folder(_) => read_small(&path, expected)?,
            Self::Held(files) => files.get(name).ok_or_else(|| absent(&path))?.clone(),
        };
        String::from_utf8(text).map_err(|error| format_error(&path, expected, error.to_string()))
    }

    /// Opens a safetensors file, which is not among the files in memory any more then.
    pub(crate) fn tensors(&mut self, name: &str) -> Result<TensorFile, InteropError> {
        let path = self.path(name);
        match self {
            Self::Folder(_) => TensorFile::open(path),
            Self::Held(files) => {
                let bytes = files.remove(name).ok_or_else(|| absent(&path))?;
                TensorFile::from_bytes(path, bytes)
            }
        }
    }
}

fn read_small(path: &Path, expected: &'static str) -> Result<Vec<u8>, InteropError> {
    let read = |source| InteropError::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(read)?;
    file.take(MAX_SMALL + 1)
        .read_to_end(&mut text)
        .map_err(read)?;
    if text.len() as u64 > MAX_SMALL {
        let reason = format!("it is longer than {MAX_SMALL} bytes");
        return Err(format_error(path, expected, reason));
    }
    Ok(text)
}

fn absent(path: &Path) -> InteropError {
    InteropError::Read {
        path: path.to_path_buf(),
        source: io::Error::new(io::ErrorKind::NotFound, "there is no such file"),
    }
}
