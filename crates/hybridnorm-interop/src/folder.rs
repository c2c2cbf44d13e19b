//! A checkpoint's tensors: in one file, or in several with an index.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::InteropError;
use crate::tensors::{TensorFile, Tensors, View};

/// The file that holds all tensors.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The file that says which file holds which.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// A JSON file longer than this is refused unread: the index of a model with 100,000 tensors has 10 MB.
const MAX_JSON: u64 = 256 << 20;

/// The tensors of a folder: `model.safetensors`, or the files that `model.safetensors.index.json` names. Memory-mapped; what was read
/// is given back to the system.
#[derive(Debug)]
pub struct TensorFolder {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// Which file holds each tensor.
    places: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFolder {
    /// Opens all files in `dir` and checks their headers.
    ///
    /// # Errors
    /// When a file is missing, cannot be read or is not a safetensors file; when the index names a file outside the folder, or a tensor
    /// that is not in the file it names.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, InteropError> {
        let dir = dir.as_ref();
        if dir.join(SINGLE).is_file() {
            return Self::of(dir, vec![TensorFile::open(dir.join(SINGLE))?]);
        }
        let path = dir.join(INDEX);
        if !path.is_file() {
            let found = ["pytorch_model.bin", "pytorch_model.bin.index.json"]
                .into_iter()
                .find(|name| dir.join(name).is_file());
            let reason = match found {
                Some(name) => format!(
                    "it holds {name}, which runs code when it is read: save it as safetensors (`safe_serialization=True`)"
                ),
                None => format!("it holds neither {SINGLE} nor {INDEX}"),
            };
            return Err(format_error(dir, "checkpoint", reason));
        }
        let index: Index = json(&path, "safetensors index")?;
        let mut names: Vec<&String> = index.weight_map.values().collect();
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(format_error(
                &path,
                "safetensors index",
                "weight_map is empty",
            ));
        }
        let open = |name: &&String| {
            let plain = Path::new(name).file_name() == Some(name.as_ref());
            if !plain || name.contains(['/', '\\']) {
                let reason = format!("\"{name}\" is not the name of a file beside it");
                return Err(format_error(&path, "safetensors index", reason));
            }
            TensorFile::open(dir.join(name))
        };
        let files = names.iter().map(open).collect::<Result<_, _>>()?;
        let folder = Self::of(dir, files)?;
        for (tensor, file) in &index.weight_map {
            let there = folder.places.get(tensor);
            let there = there.is_some_and(|place| names.get(*place) == Some(&file));
            if !there {
                return Err(InteropError::Missing {
                    path: dir.join(file),
                    name: tensor.clone(),
                });
            }
        }
        Ok(folder)
    }

    fn of(dir: &Path, files: Vec<TensorFile>) -> Result<Self, InteropError> {
        let mut places = BTreeMap::new();
        for (place, file) in files.iter().enumerate() {
            for name in file.names() {
                if let Some(first) = places.insert(name.clone(), place) {
                    let other = files[first].path().display();
                    let reason = format!("\"{name}\" is in {other} too");
                    return Err(format_error(file.path(), "safetensors", reason));
                }
            }
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            files,
            places,
        })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Bytes of all tensors together, as they lie in the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(TensorFile::bytes).sum()
    }

    fn file(&self, name: &str) -> Result<&TensorFile, InteropError> {
        let place = self.places.get(name);
        let file = place.and_then(|place| self.files.get(*place));
        file.ok_or_else(|| InteropError::Missing {
            path: self.dir.clone(),
            name: name.to_string(),
        })
    }
}

impl Tensors for TensorFolder {
    fn names(&self) -> Vec<String> {
        self.places.keys().cloned().collect()
    }

    fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    fn view(&self, name: &str) -> Result<View<'_>, InteropError> {
        self.file(name)?.view(name)
    }

    fn release(&self, name: &str) {
        if let Ok(file) = self.file(name) {
            file.release(name);
        }
    }
}

/// Reads a JSON file.
pub(crate) fn json<T: DeserializeOwned>(
    path: &Path,
    expected: &'static str,
) -> Result<T, InteropError> {
    let read = |source| InteropError::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(read)?;
    file.take(MAX_JSON + 1)
        .read_to_end(&mut text)
        .map_err(read)?;
    if text.len() as u64 > MAX_JSON {
        let reason = format!("it is longer than {MAX_JSON} bytes");
        return Err(format_error(path, expected, reason));
    }
    serde_json::from_slice(&text).map_err(|error| format_error(path, expected, error.to_string()))
}

pub(crate) fn format_error(
    path: &Path,
    expected: &'static str,
    reason: impl Into<String>,
) -> InteropError {
    InteropError::Format {
        path: path.to_path_buf(),
        expected,
        reason: reason.into(),
    }
}
