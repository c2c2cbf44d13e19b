//! One transformer block with its norms wherever the placement puts them.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::attention::{Attention, AttentionConfig};
use crate::error::ConfigError;
use crate::feed_forward::{Activation, DenseFeedForward, DenseFeedForwardConfig, FeedForward};
use crate::init::{InitConfig, Initializer};
use crate::norm::NormStyle;
use crate::pass::Pass;
use crate::placement::{LayerNorms, Placement, QkvNormSites, ResidualNorms};
use crate::residual::Residual;
use crate::trace::Branch;

/// Configuration of one [`Block`] to be used in a model of your own; also a field of a [`Config`] of your own.
///
/// ```
/// use hybridnorm_core::{BlockConfig, Pass};
/// use burn::tensor::{Device, Distribution, Tensor};
///
/// # #[cfg(feature = "flex")] {
/// let device = Device::flex();
/// let block = BlockConfig::new(64, 4, 160).with_placement("hybrid".parse()?).init(&device)?;
/// let x = Tensor::<3>::random([2, 16, 64], Distribution::Default, &device);
/// assert_eq!(block.forward(x, &mut Pass::causal()).dims(), [2, 16, 64]);
/// # }
/// # Ok::<(), hybridnorm_core::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockConfig {
    /// Attention. Its `norms` and `norm_style` stay as [`AttentionConfig::new`] has them: the placement and the `norm_style` beside it
    /// say them for the whole block.
    pub attention: AttentionConfig,
    /// Inner width of the SwiGLU feed-forward layer.
    pub d_ff: usize,
    /// Where the norms stand.
    pub placement: Placement,
    /// How they normalise.
    pub norm_style: NormStyle,
    /// Initialisation.
    pub init: InitConfig,
    /// This block's index in the stack, from 0.
    pub layer: usize,
    /// Blocks in the stack.
    pub n_layers: usize,
}

impl Config for BlockConfig {}

impl BlockConfig {
    /// A HybridNorm* block, alone in its stack: say with [`at`](Self::at) where it stands, since placements and
    /// initialisations depend on it and equal places draw equal weights.
    pub fn new(d_model: usize, n_heads: usize, d_ff: usize) -> Self {
        Self {
            attention: AttentionConfig::new(d_model, n_heads),
            d_ff,
            placement: Placement::default(),
            norm_style: NormStyle::default(),
            init: InitConfig::default(),
            layer: 0,
            n_layers: 1,
        }
    }

    /// Puts the norms elsewhere.
    #[must_use]
    pub fn with_placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Shares each key and value head among several query heads.
    #[must_use]
    pub fn with_kv_heads(mut self, n_kv_heads: usize) -> Self {
        self.attention.n_kv_heads = n_kv_heads;
        self
    }

    /// Says that this is block `layer` (from 0) of `n_layers`; placements and initialisations depend on it.
    #[must_use]
    pub fn at(mut self, layer: usize, n_layers: usize) -> Self {
        (self.layer, self.n_layers) = (layer, n_layers);
        self
    }

    /// Seeds the initialisation.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.init.seed = seed;
        self
    }

    /// Builds the block with a dense SwiGLU feed-forward layer.
    ///
    /// # Errors
    /// When a size or factor is not allowed; the error names it.
    pub fn init(&self, device: &Device) -> Result<Block, ConfigError> {
        let feed_forward = DenseFeedForwardConfig {
            d_model: self.attention.d_model,
            d_ff: self.d_ff,
            activation: Activation::SwiGlu,
            bias: self.attention.bias,
        };
        self.init_with(device, |init| feed_forward.init(init, device))
    }

    /// Builds the block with another feed-forward layer, drawn by the rule that `feed_forward` is given; `d_ff` is not used.
    ///
    /// # Errors
    /// As [`init`](Self::init), and those of `feed_forward`.
    pub fn init_with<F: FeedForward>(
        &self,
        device: &Device,
        feed_forward: impl FnOnce(&Initializer) -> Result<F, ConfigError>,
    ) -> Result<Block<F>, ConfigError> {
        let AttentionConfig {
            d_model,
            n_heads,
            head_dim,
            ..
        } = self.attention;
        self.attention.validate()?;
        self.validate_attention_norms()?;
        if n_heads * head_dim != d_model && d_model / n_heads == head_dim {
            let allowed = format!("a divisor of d_model = {d_model}, or an explicit head_dim");
            return Err(ConfigError::new("n_heads", n_heads, allowed));
        }
        if self.layer >= self.n_layers {
            let allowed = format!("below n_layers = {}", self.n_layers);
            return Err(ConfigError::new("layer", self.layer, allowed));
        }
        let norms = self.placement.layer(self.layer, self.n_layers)?;
        let init = Initializer::new(
            &self.init,
            self.placement.default_init(),
            d_model,
            self.n_layers,
        )?
        .at_layer(self.layer);
        let feed_forward = feed_forward(&init.at("feed_forward"))?;
        let parts = BlockParts {
            attention: &self.attention,
            norms: &norms,
            style: &self.norm_style,
            layer: self.layer,
        };
        Block::new(parts, feed_forward, &init, device)
    }

    /// Refuses what is said of attention's norms in the wrong place, where it would do nothing.
    fn validate_attention_norms(&self) -> Result<(), ConfigError> {
        let AttentionConfig {
            norms, norm_style, ..
        } = &self.attention;
        if *norms != QkvNormSites::NONE {
            let allowed = "none: the block's placement sets them";
            return Err(ConfigError::new("attention.norms", norms, allowed));
        }
        if *norm_style != self.norm_style && *norm_style != NormStyle::default() {
            let allowed = "the default, or that of the block: norm_style beside attention holds for all norms of a block";
            let value = format!("{norm_style:?}");
            return Err(ConfigError::new("attention.norm_style", value, allowed));
        }
        Ok(())
    }
}

/// What a [`Block`] is made of beside its feed-forward layer.
#[derive(Debug, Clone, Copy)]
pub struct BlockParts<'a> {
    /// Attention; `norms` decides which of its tensors are normalised.
    pub attention: &'a AttentionConfig,
    /// The placement's record for this layer.
    pub norms: &'a LayerNorms,
    /// How to normalise.
    pub style: &'a NormStyle,
    /// This block's index in the stack.
    pub layer: usize,
}

/// One transformer block: attention and a feed-forward layer, each inside its [`Residual`].
#[derive(Module, Debug)]
pub struct Block<F: FeedForward = DenseFeedForward> {
    /// Norms around attention.
    pub attention_residual: Residual,
    /// Attention.
    pub attention: Attention,
    /// Norms around the feed-forward layer.
    pub feed_forward_residual: Residual,
    /// The feed-forward layer.
    pub feed_forward: F,
}

impl<F: FeedForward> Block<F> {
    /// Assembles a block around `feed_forward`; `init` is the rule for this layer.
    ///
    /// # Errors
    /// When a size or factor is not allowed.
    pub fn new(
        parts: BlockParts<'_>,
        feed_forward: F,
        init: &Initializer,
        device: &Device,
    ) -> Result<Self, ConfigError> {
        let attention = AttentionConfig {
            norms: parts.norms.qkv,
            norm_style: parts.style.clone(),
            ..parts.attention.clone()
        };
        let residual =
            |record: &ResidualNorms| Residual::new(record, parts.style, attention.d_model, device);
        Ok(Self {
            attention_residual: residual(&parts.norms.attention)?,
            feed_forward_residual: residual(&parts.norms.feed_forward)?,
            attention: attention.init(parts.layer, &init.at("attention"), device)?,
            feed_forward,
        })
    }

    /// For HybridNorm (eq. 6): `Y = MHA_QKV(X) + X`, then `X⁺ = FFN(N(Y)) + N(Y)`.
    ///
    /// # Shapes
    /// - input `[batch, seq, d_model]`
    /// - output `[batch, seq, d_model]`
    pub fn forward(&self, x: Tensor<3>, pass: &mut Pass<F::Report>) -> Tensor<3> {
        let y = self
            .attention_residual
            .wrap(x, Branch::Attention, pass, |h, pass| {
                self.attention.forward(h, pass)
            });
        self.feed_forward_residual
            .wrap(y, Branch::FeedForward, pass, |h, pass| {
                self.feed_forward.forward(h, pass)
            })
    }
}
