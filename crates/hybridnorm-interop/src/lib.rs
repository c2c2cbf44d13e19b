//! Published checkpoints into hybridnorm models and out again: safetensors files, name maps, configuration maps.
//!
//! [`official`] speaks the authors' own release (`config.yaml` fields, `transformer.blocks.0.att_proj.weight`);
//! [`hugging_face`] the files of transformers (`config.json`, `model.layers.0.self_attn.q_proj.weight`). [`TensorFile`] reads
//! safetensors; a [`NameMap`] says where a format keeps each parameter, whole or in pieces; [`load`] puts the tensors of a file into a
//! Burn module and says what does not fit.

#![warn(missing_docs)]

mod error;
pub mod export;
mod folder;
pub mod hugging_face;
mod layout;
mod load;
mod names;
pub mod official;
mod tensors;

pub use error::InteropError;
pub use folder::TensorFolder;
pub use hugging_face::Pretrained;
pub use layout::{Layout, Piece};
pub use load::load;
pub use names::{NameMap, NameRow, Theirs};
pub use safetensors::tensor::Dtype;
pub use tensors::{Array, TensorFile, Tensors, View};
