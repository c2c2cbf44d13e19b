//! Published checkpoints into hybridnorm models: safetensors files, name maps, configuration maps.
//!
//! [`official`] speaks the authors' own release (`config.yaml` fields, `transformer.blocks.0.att_proj.weight`);
//! [`TensorFile`] reads safetensors; [`load`] puts named tensors into a Burn module and says what does not fit.

#![warn(missing_docs)]

mod error;
mod load;
pub mod official;
mod tensors;

pub use error::InteropError;
pub use load::{NamedTensor, load};
pub use tensors::{Array, TensorFile};
