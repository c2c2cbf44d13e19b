//! Checkpoints that are either whole or ignored.
//!
//! A run's `checkpoints/step-N/` is a *generation*:
//!
//! | file | what |
//! |---|---|
//! | `model.safetensors` | every parameter by module path, row-major as Burn stores it, f32 |
//! | `optimizer.safetensors` | both of AdamW's moments of every parameter, as `first.PATH` and `second.PATH`; of those that are Muon's, `momentum.PATH` |
//! | `state.json` | [`TrainingState`]: step, tokens, optimiser steps, configuration hash |
//! | `config.toml` | the run's configuration when it was written |
//! | `manifest.json` | [`Manifest`]: size and BLAKE3 hash of the files above |
//!
//! It is built aside in `step-N.tmp`, flushed to the disk, the manifest last, then renamed: a crash at any instant
//! leaves the generations before it as they were. Reading holds every file against the manifest and names what is
//! damaged; [`CheckpointStore::newest_whole`] is what a run resumes from.

mod error;
mod manifest;
mod state;
mod store;
mod tensor_file;
mod tensors;

use std::path::Path;

use burn::tensor::Device;
use hybridnorm_core::Decoder;
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};

pub use error::{CheckpointError, Damage};
pub(crate) use manifest::sync_dir;
pub use manifest::{FORMAT, FileEntry, MANIFEST, Manifest};
pub use state::TrainingState;
pub use store::{CheckpointStore, Generation, Newest, Snapshot};

/// Loads the model of the generation in `dir` (a `step-N` folder) onto `device`, for generation or evaluation.
///
/// # Errors
/// When a file is damaged, or the weights are not those of a model of `config`: the first tensor that differs is
/// named with the shape found and the shape expected.
pub fn load_model(
    dir: &Path,
    config: &ModelConfig,
    device: &Device,
) -> Result<Decoder<FeedForwardLayer>, CheckpointError> {
    Manifest::verify(dir)?;
    tensors::read_weights(dir, store::WEIGHTS, config.blank(device)?)
}
