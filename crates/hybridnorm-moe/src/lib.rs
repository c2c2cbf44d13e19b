//! Sparse experts for transformer language models on [Burn](https://burn.dev): a feed-forward layer of which each token uses a few
//! experts only.
//!
//! [`SparseFeedForward`] is a [`FeedForward`](hybridnorm_core::FeedForward) of `hybridnorm-core`: any norm placement goes around it.
//! [`ModelConfig`] builds whole decoders, dense ones, sparse ones and mixes of both layer by layer. Each sparse layer reports its
//! [`Routing`], from which come the balancing [`losses`] and the router's [`health`].
//!
//! ```
//! use burn::tensor::{Device, Int, Tensor};
//! use hybridnorm_core::{DecoderConfig, Pass, loss};
//! use hybridnorm_moe::{ModelConfig, SparseConfig};
//!
//! # #[cfg(feature = "flex")] {
//! let device = Device::flex().autodiff();
//! let sparse = SparseConfig::new(8, 2, 96); // experts, experts per token, inner width of each
//! let config = ModelConfig { decoder: DecoderConfig::new(257, 64, 4, 2), sparse: Some(sparse.clone()) };
//! let model = config.init(&device)?;
//! let tokens = Tensor::<2, Int>::from_data([[72, 121, 98, 114, 105, 100]], &device);
//! let (input, target) = (tokens.clone().narrow(1, 0, 5), tokens.narrow(1, 1, 5));
//! let mut pass = Pass::causal();
//! let logits = model.forward_in(input, &mut pass);
//! let auxiliary = sparse.losses.of(&pass.reports); // load balancing and router z-loss
//! let loss = auxiliary.add_to(loss::next_token_loss(logits, target));
//! let gradients = loss.backward();
//! # let _ = gradients;
//! # }
//! # Ok::<(), hybridnorm_core::ConfigError>(())
//! ```

#![warn(missing_docs)]
#![recursion_limit = "256"]

pub mod assignment;
pub mod experts;
mod feed_forward;
pub mod health;
mod layer;
pub mod losses;
mod model;
pub mod presets;
pub mod router;

pub use experts::Experts;
pub use feed_forward::{SparseConfig, SparseFeedForward};
pub use health::RouterHealth;
pub use layer::FeedForwardLayer;
pub use losses::{Auxiliary, LossConfig, LossConvention};
pub use model::{ModelConfig, SparseLayers};
pub use presets::{PRESETS, Preset};
pub use router::{Router, RouterConfig, Routing, RoutingError, ScoreFunction};
