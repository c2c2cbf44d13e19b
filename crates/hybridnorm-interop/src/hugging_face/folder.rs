//! A folder as the Hub has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_core::Decoder;
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};
use serde_json::{Map, Value};

use super::{Architecture, Imported, import};
use crate::error::{InteropError, unsupported};
use crate::files::Files;
use crate::folder::TensorFolder;
use crate::load::{check, load};
use crate::names::NameMap;
use crate::official;
use crate::tensors::Tensors;

const CONFIG: &str = "config.json";
const EXPECTED: &str = "Hugging Face configuration";
const TOKENIZER: &str = "tokenizer.json";
/// What a tied model's file may hold a second time.
const HEAD: &str = "lm_head.weight";

/// The contents of one of a folder's small files: `config.json`, `generation_config.json`.
///
/// # Errors
/// When it is missing, or no JSON object.
pub fn json_object(path: &Path) -> Result<Map<String, Value>, InteropError> {
    let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Files::Folder(dir).json(&name, EXPECTED)
}

/// The configuration among `files`, and the model it describes.
fn described(files: &Files) -> Result<(Map<String, Value>, Imported), InteropError> {
    if !files.has(CONFIG)
        && let Some(config) = official::config_of(files)?
    {
        let imported = official::import(&config)?;
        return Ok((config, imported));
    }
    let config = files.json(CONFIG, EXPECTED)?;
    let imported = import(&config)?;
    Ok((config, imported))
}

/// A published model: a folder with `config.json` and `model.safetensors`, in one file or several; or one of the authors' own code, with
/// `config.yaml`.
///
/// Opening reads the configuration and the files' headers. [`load`](Self::load) reads the numbers, tensor by tensor; they become f32,
/// and beside the model there is never more than its largest parameter in memory a second time.
#[derive(Debug)]
pub struct Pretrained {
    dir: PathBuf,
    imported: Imported,
    tensors: TensorFolder,
}

impl Pretrained {
    /// Opens the folder `dir`.
    ///
    /// # Errors
    /// When a file is missing, damaged or hostile; when the architecture or one of its options cannot be expressed: names the field.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, InteropError> {
        Self::read(Files::Folder(dir.as_ref().to_path_buf()))
    }

    /// A folder's files in memory, by name: where there is no file system, as in a browser.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn in_memory(files: BTreeMap<String, Vec<u8>>) -> Result<Self, InteropError> {
        Self::read(Files::Held(files))
    }

    fn read(mut files: Files) -> Result<Self, InteropError> {
        let (_, imported) = described(&files)?;
        let tensors = TensorFolder::read(&mut files)?;
        Ok(Self {
            dir: files.dir().to_path_buf(),
            imported,
            tensors,
        })
    }

    /// The contents of `dir/config.json`, and the model they describe; where there is none, those of the authors' own `config.yaml`.
    ///
    /// # Errors
    /// When it is missing or not what it should be, or the model cannot be expressed.
    pub fn describe(dir: &Path) -> Result<(Map<String, Value>, Imported), InteropError> {
        described(&Files::Folder(dir.to_path_buf()))
    }

    /// The folder; empty in memory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its row in the table of architectures.
    pub fn architecture(&self) -> &'static Architecture {
        self.imported.architecture
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.imported.model
    }

    /// What its tensors are called.
    pub fn names(&self) -> &NameMap {
        &self.imported.names
    }

    /// Its tensors.
    pub fn tensors(&self) -> &TensorFolder {
        &self.tensors
    }

    /// Its `tokenizer.json`, where it has one.
    pub fn tokenizer(&self) -> Option<PathBuf> {
        let path = self.dir.join(TOKENIZER);
        path.is_file().then_some(path)
    }

    /// Holds the files against the configuration, without reading a number but those of a head that is there twice.
    ///
    /// # Errors
    /// Names every tensor that is missing, left over, or of another shape.
    pub fn check(&self, device: &Device) -> Result<(), InteropError> {
        let module = self.config().blank(device)?;
        check(&module, &self.tensors, &self.names_in_file()?)
    }

    /// The model on `device`.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn load(&self, device: &Device) -> Result<Decoder<FeedForwardLayer>, InteropError> {
        let names = self.names_in_file()?;
        load(self.config().blank(device)?, &self.tensors, &names)
    }

    /// The names, and that of a head which may be left over.
    fn names_in_file(&self) -> Result<NameMap, InteropError> {
        let names = self.names().clone();
        if !(self.config().decoder.tied && self.tensors.contains(HEAD)) {
            return Ok(names);
        }
        self.check_tied_head()?;
        Ok(names.ignoring(&[HEAD]))
    }

    /// A tied model's head may lie in the file beside the embedding, if it is the same.
    fn check_tied_head(&self) -> Result<(), InteropError> {
        let path = "embedding.weight";
        let decoder = &self.config().decoder;
        let shape = [decoder.padded_vocab_size, decoder.d_model];
        let layout = self.names().layout(path, &shape);
        let name = layout.and_then(|layout| layout.names().next().map(str::to_string));
        let embedding = name.filter(|name| self.tensors.contains(name));
        if let Some(embedding) = embedding {
            let (head, own) = (self.tensors.view(HEAD)?, self.tensors.view(&embedding)?);
            if (head.dtype, head.bytes) != (own.dtype, own.bytes) {
                let reason = format!(
                    "the file holds a {HEAD} that is not {embedding}: transformers leaves them untied then, say so with false"
                );
                return unsupported("tie_word_embeddings", true, &reason);
            }
            self.tensors.release(HEAD);
            self.tensors.release(&embedding);
        }
        Ok(())
    }
}
