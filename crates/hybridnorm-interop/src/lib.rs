//! Published checkpoints into hybridnorm models and out again: safetensors files, name maps, configuration maps.
//!
//! [`Pretrained`] reads a Hugging Face folder; [`ARCHITECTURES`](hugging_face::ARCHITECTURES) lists what it may hold. Greedy text from one:
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use hybridnorm_interop::Pretrained;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # #[cfg(feature = "flex")] {
//! let device = Device::flex();
//! let folder = Pretrained::open("../hybridnorm-train/reference/hf_gemma2/model")?;
//! let model = folder.load(&device)?;
//! let (mut tokens, mut known) = (vec![8i64, 32, 38, 38, 36], 0);
//! let mut cache = model.new_cache(64);
//! while tokens.len() < 12 {
//!     let fresh = Tensor::<1, Int>::from_ints(&tokens[known..], &device).unsqueeze();
//!     known = tokens.len();
//!     let logits = model.next_logits(fresh, &mut cache); // [1, padded_vocab_size]
//!     tokens.push(logits.argmax(1).into_scalar());
//! }
//! assert_eq!(tokens[5..], [4, 11, 11, 11, 11, 35, 35]); // as transformers says
//! # }
//! # Ok(())
//! # }
//! ```
//!
//! [`official`] speaks the authors' own release (`config.yaml` fields, `transformer.blocks.0.att_proj.weight`); [`hugging_face`] the files
//! of transformers (`config.json`, `model.layers.0.self_attn.q_proj.weight`). [`TensorFile`] reads one safetensors file, [`TensorFolder`]
//! those of a folder; a [`NameMap`] says where a format keeps each parameter, whole or in pieces; [`load()`] puts tensors into a Burn module
//! and says what does not fit.

#![warn(missing_docs)]

mod error;
pub mod export;
mod files;
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
pub use load::{check, load};
pub use names::{NameMap, NameRow, Theirs};
pub use safetensors::tensor::Dtype;
pub use tensors::{Array, TensorFile, Tensors, View};
