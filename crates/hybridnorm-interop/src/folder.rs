//! A checkpoint's tensors: in one file, or in several with an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{InteropError, format_error};
use crate::files::Files;
use crate::official::keys;
use crate::tensors::{TensorFile, Tensors, View};

/// The file that holds all tensors.
pub(crate) const SINGLE: &str = "model.safetensors";
/// The file that says which file holds which.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// The same in a reference case.
const REFERENCE: &str = "weights.safetensors";
/// Weights in Python's own format.
const PICKLES: [&str; 3] = [
    "model.pt",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The tensors of a folder: `model.safetensors`, or the files that `model.safetensors.index.json` names. Memory-mapped; what was read
/// is given back to the system.
#[derive(Debug)]
pub struct TensorFolder {
    dir: PathBuf,
    files: Vec<TensorFile>,
    /// Where each tensor is.
    places: BTreeMap<String, Place>,
}

/// A tensor's place.
#[derive(Debug)]
struct Place {
    /// The number of its file.
    file: usize,
    /// What it is called there.
    name: String,
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
        Self::read(&mut Files::Folder(dir.as_ref().to_path_buf()))
    }

    /// Files in memory, by name, as [`open`](Self::open) takes them from a folder.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_memory(files: BTreeMap<String, Vec<u8>>) -> Result<Self, InteropError> {
        Self::read(&mut Files::Held(files))
    }

    pub(crate) fn read(all: &mut Files) -> Result<Self, InteropError> {
        let dir = all.dir().to_path_buf();
        for single in [SINGLE, REFERENCE] {
            if all.has(single) {
                return Self::of(&dir, vec![all.tensors(single)?]);
            }
        }
        let path = all.path(INDEX);
        if !all.has(INDEX) {
            let found = PICKLES.into_iter().find(|name| all.has(name));
            let reason = match found {
                Some(name) if name.ends_with(".json") => format!(
                    "it holds {name}, of files that run code when they are read: save it as safetensors (`safe_serialization=True`)"
                ),
                Some(name) => format!(
                    "it holds {name}, which runs code when it is read; this line makes {SINGLE} of it: \
                     cd {}; python3 -c \"import torch, safetensors.torch as s; w = torch.load('{name}', map_location='cpu', weights_only=True); \
                     s.save_file({{k: v.clone().contiguous() for k, v in w.items()}}, '{SINGLE}')\"",
                    dir.display()
                ),
                None => format!("it holds neither {SINGLE} nor {INDEX}"),
            };
            return Err(format_error(&dir, "checkpoint", reason));
        }
        let index: Index = all.json(INDEX, "safetensors index")?;
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
        let mut open = |name: &&String| {
            let plain = Path::new(name).file_name() == Some(name.as_ref());
            if !plain || name.contains(['/', '\\']) {
                let reason = format!("\"{name}\" is not the name of a file beside it");
                return Err(format_error(&path, "safetensors index", reason));
            }
            all.tensors(name)
        };
        let files = names.iter().map(&mut open).collect::<Result<_, _>>()?;
        let folder = Self::of(&dir, files)?;
        for (tensor, file) in &index.weight_map {
            let there = folder.places.get(tensor);
            let there = there.is_some_and(|place| names.get(place.file) == Some(&file));
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
        for (number, file) in files.iter().enumerate() {
            for stored in file.names() {
                let name = keys::decoded(&stored).unwrap_or_else(|| stored.clone());
                let place = Place {
                    file: number,
                    name: stored,
                };
                if let Some(first) = places.insert(name.clone(), place) {
                    let other = files[first.file].path().display();
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

    /// The file that holds a tensor, and what it is called there.
    fn find(&self, name: &str) -> Result<(&TensorFile, &str), InteropError> {
        let place = self.places.get(name);
        let found = place.and_then(|place| Some((self.files.get(place.file)?, &place.name[..])));
        found.ok_or_else(|| InteropError::Missing {
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
        let (file, stored) = self.find(name)?;
        file.view(stored)
    }

    fn release(&self, name: &str) {
        if let Ok((file, stored)) = self.find(name) {
            file.release(stored);
        }
    }
}
