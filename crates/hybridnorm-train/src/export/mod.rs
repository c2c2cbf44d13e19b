//! A trained model out: a folder that transformers loads, with tokenizer and model card.
//!
//! The folder is built aside, read back and held against the model's own forward pass, and only then gets its name: what was there
//! before is untouched until then.

mod card;
mod figures;
mod folder;
mod parity;
mod tokenizer;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_interop::export::{Export, Format, SpecialTokens, WeightType};
use hybridnorm_interop::hugging_face::Architecture;
use hybridnorm_interop::{InteropError, Pretrained};
use serde_json::{Map, Value};

use crate::data::{DataError, TokenizerError};
use crate::error::Error;
use crate::stored::Stored;
pub use parity::Parity;

/// What is exported how.
#[derive(Debug, Clone)]
pub struct Request {
    /// A run directory, whose newest whole checkpoint counts, or a checkpoint.
    pub source: PathBuf,
    /// The new folder.
    pub out: PathBuf,
    /// What it is written as.
    pub format: Format,
    /// The type of the weights.
    pub dtype: WeightType,
    /// Bytes of a file of weights at most.
    pub max_shard: u64,
    /// Replaces a model folder that is there.
    pub force: bool,
}

/// What an export made.
#[derive(Debug, Clone)]
pub struct Report {
    /// The row of the table of architectures.
    pub architecture: &'static Architecture,
    /// Whether it needs `trust_remote_code`.
    pub needs_code: bool,
    /// The files of weights.
    pub files: Vec<String>,
    /// Tensors in them.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// How the folder compares with the model.
    pub parity: Parity,
    /// Checkpoints that were passed over, and why.
    pub notes: Vec<String>,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no model.
    #[error("{} is no run and no checkpoint: it holds neither config.toml nor manifest.json", path.display())]
    NoModel {
        /// What was given.
        path: PathBuf,
    },
    /// The folder is taken.
    #[error("{} is there already: give another --out, or --force to replace it", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The folder is taken by something that is not to be replaced.
    #[error("{} is there and holds no config.json: --force replaces model folders only", path.display())]
    NotAModel {
        /// The folder.
        path: PathBuf,
    },
    /// The folder, read back, computes something else.
    #[error("the folder computes other logits than the model, by up to {difference:e} of {largest:e}: nothing was written to {}", out.display())]
    Parity {
        /// The largest difference.
        difference: f32,
        /// The largest logit.
        largest: f32,
        /// Where the folder would have gone.
        out: PathBuf,
    },
    /// The device failed.
    #[error("the device failed while logits were read: {0}")]
    Device(#[from] burn::tensor::TensorReadError),
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The tokenizer cannot be written.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The tokenizer refuses its own vocabulary.
    #[error(transparent)]
    Tokenize(#[from] TokenizerError),
    /// The model cannot be expressed, or files cannot be written.
    #[error(transparent)]
    Interop(#[from] InteropError),
}

impl ExportError {
    /// Wraps the file system's answer to `action` on `path`.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// Exports a model; computes on `device`.
///
/// # Errors
/// When there is no model, the folder is taken, no format expresses the model, or the folder does not compute what the model does. The
/// folder is not there then, and what was there before is.
pub fn export(request: &Request, device: &Device) -> Result<Report, Error> {
    let folder = folder::NewFolder::create(&request.out, request.force)?;
    if !Stored::is_at(&request.source) {
        let path = request.source.clone();
        return Err(ExportError::NoModel { path }.into());
    }
    let source = Stored::open(&request.source, None)?;
    let config = source.model_config();
    let published = source.published.as_ref();
    let export = Export::new(
        &config,
        request.format,
        published.map(|published| published.model_type.as_str()),
        request.dtype,
        special_tokens(&source)?,
    )?
    .with_generation(generation(&source));
    let model = source.load(device)?;
    let written = export.write(folder.path(), &model, request.max_shard)?;
    // Of weights that are rounded, the folder has to compute what the rounded model computes.
    let model = parity::rounded(model, request.dtype);
    let probe = parity::probe(&config.decoder);
    let expected = parity::logits(&model, &probe, device).map_err(ExportError::from)?;
    // One model in memory at a time.
    drop(model);
    tokenizer::write(folder.path(), &source.tokenizer, &config.decoder)?;
    let read_back = Pretrained::open(folder.path())?.load(device)?;
    let found = parity::logits(&read_back, &probe, device).map_err(ExportError::from)?;
    drop(read_back);
    let parity = Parity::of(&expected, &found);
    if !parity.holds() {
        return Err(ExportError::Parity {
            difference: parity.difference,
            largest: parity.largest,
            out: request.out.clone(),
        }
        .into());
    }
    let card = card::Card {
        source: &source,
        export: &export,
        written: &written,
        dtype: request.dtype,
        parity: &parity,
        name: request.out.file_name().unwrap_or(request.out.as_os_str()),
    };
    let path = folder.path().join("README.md");
    std::fs::write(&path, card.to_string()).map_err(ExportError::io("write", &path))?;
    folder.finish()?;
    Ok(Report {
        architecture: export.architecture(),
        needs_code: export.needs_code(),
        files: written.files,
        tensors: written.tensors,
        bytes: written.bytes,
        parity,
        notes: source.notes,
    })
}

/// What begins and ends a text: as the published configuration has it, or else as in training.
fn special_tokens(source: &Stored) -> Result<SpecialTokens, Error> {
    let known = Some(source.tokenizer.vocab_size());
    if let Some(published) = &source.published {
        let (begin, end) = published.special_tokens();
        if !end.is_empty() {
            return Ok(SpecialTokens { begin, end, known });
        }
    }
    let end = source.tokenizer.end_of_document()?;
    Ok(SpecialTokens {
        begin: Some(end),
        end: vec![end],
        known,
    })
}

/// The `generation_config.json` of the model that was imported.
fn generation(source: &Stored) -> Map<String, Value> {
    let published = source.published.as_ref();
    published.map_or_else(Map::new, |published| published.generation.clone())
}
