//! HybridNorm (arXiv 2503.04598) and every rival norm placement for transformer language models, on
//! [Burn](https://burn.dev).
//!
//! A [`Placement`] says where the norms stand; a [`Block`] or a whole [`Decoder`] is built from it and runs on any
//! Burn device. The crate enables no backend by itself: name it among this crate's features (`flex`, `cuda`, `wgpu`, ..), which pass it
//! on to Burn. A backend that is named at `burn` alone lacks this project's operations, and the first of them panics.
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use hybridnorm_core::{DecoderConfig, loss};
//!
//! # #[cfg(feature = "flex")] {
//! let device = Device::flex().autodiff();
//! let config = DecoderConfig {
//!     placement: "hybrid-star".parse()?,
//!     ..DecoderConfig::new(257, 64, 4, 2) // vocab, d_model, heads, layers
//! };
//! println!("{}", config.placement.equations(config.n_layers)?);
//! let model = config.init(&device)?;
//! let tokens = Tensor::<2, Int>::from_data([[72, 121, 98, 114, 105, 100]], &device);
//! let (input, target) = (tokens.clone().narrow(1, 0, 5), tokens.narrow(1, 1, 5));
//! let loss = loss::next_token_loss(model.forward(input), target);
//! let gradients = loss.backward();
//! # let _ = gradients;
//! # }
//! # Ok::<(), hybridnorm_core::ConfigError>(())
//! ```
//!
//! "HybridNorm" here is QKV-norm in attention plus a norm-then-residual feed-forward; see [`placement`] for what the
//! name means elsewhere.

#![warn(missing_docs)]
#![recursion_limit = "256"]

pub mod attention;
pub mod block;
pub mod decoder;
mod error;
pub mod feed_forward;
pub mod init;
pub mod loss;
mod names;
pub mod norm;
pub mod pass;
pub mod placement;
pub mod precision;
pub mod presets;
pub mod probe;
pub mod residual;
pub mod trace;

pub use attention::cache::KvCache;
pub use attention::rope::{RopeScaling, RotaryConfig};
pub use attention::{Attention, AttentionConfig};
pub use block::{Block, BlockConfig};
pub use decoder::{Decoder, DecoderConfig};
pub use error::ConfigError;
pub use feed_forward::{Activation, DenseFeedForward, DenseFeedForwardConfig, FeedForward};
pub use init::{InitConfig, InitScheme};
pub use names::unknown as unknown_name;
pub use norm::{Norm, NormConfig, NormKind, NormStyle};
pub use pass::{Pass, logit_rows};
pub use placement::{
    LayerNorms, NormSite, NormSpan, PLACEMENTS, Placement, QkvNormSites, ResidualNorms,
};
pub use presets::{PRESETS, Preset};
pub use probe::{LayerFigures, Probe, ProbeFigures, StreamFigures};
pub use residual::Residual;
pub use trace::Trace;
