//! What a [`Decoder`](super::Decoder) is built from: sizes, placement, options, and what is allowed.

use burn::config::Config;
use serde::{Deserialize, Serialize};

use crate::attention::AttentionConfig;
use crate::attention::rope::RotaryConfig;
use crate::error::{ConfigError, positive, positive_real};
use crate::feed_forward::{Activation, DenseFeedForwardConfig};
use crate::init::{InitConfig, InitScheme, Initializer};
use crate::norm::NormStyle;
use crate::placement::Placement;

/// Configuration of a [`Decoder`](super::Decoder). Unknown fields are refused when it is read from a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Tokens the tokenizer knows.
    pub vocab_size: usize,
    /// Rows of the embedding and the head; at least `vocab_size`. The rows beyond it are trained like the others and
    /// never masked, as in the reference.
    pub padded_vocab_size: usize,
    /// Width of the stream.
    pub d_model: usize,
    /// Blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Width of a head; `None` is d_model / n_heads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Inner width of the feed-forward layer.
    pub d_ff: usize,
    /// Longest sequence the model is meant for, in tokens.
    pub max_seq_len: usize,
    /// Non-linearity of the feed-forward layer.
    #[serde(default)]
    pub activation: Activation,
    /// Where the norms stand.
    #[serde(default)]
    pub placement: Placement,
    /// How they normalise.
    #[serde(default)]
    pub norm: NormStyle,
    /// A norm after the embedding; `None` leaves it to the placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_norm: Option<bool>,
    /// A norm before the head; `None` leaves it to the placement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_norm: Option<bool>,
    /// Factor on the embedding's output (Gemma: √d_model).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_scale: Option<f64>,
    /// Rotary position embedding.
    #[serde(default)]
    pub rope: RotaryConfig,
    /// That of the blocks with a window, where it is another one (Gemma 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_rope: Option<RotaryConfig>,
    /// Biases on all linear layers, an untied head included, but for those that the next fields speak of.
    #[serde(default)]
    pub bias: bool,
    /// Biases on attention's projections; `None` is `bias`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_bias: Option<bool>,
    /// Biases on the projections of dense feed-forward layers; `None` is `bias`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feed_forward_bias: Option<bool>,
    /// A bias on an untied head; `None` is `bias`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_bias: Option<bool>,
    /// Clamps queries, keys and values to ± this, before their norms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clip_qkv: Option<f64>,
    /// Clamps them behind their norms instead (OLMoE in transformers).
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub clip_normed: bool,
    /// Factor on the attention scores; `None` is 1/√head_dim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softmax_scale: Option<f64>,
    /// Soft cap on the attention scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_softcap: Option<f64>,
    /// Tokens a query sees, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sliding_window: Option<usize>,
    /// Blocks, from 0, whose queries see all tokens before them nevertheless (Gemma 2: every second, Gemma 3: every sixth).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub global_layers: Vec<usize>,
    /// Factor on the logits (`scale_logits` of the reference is 1/√d_model).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_scale: Option<f64>,
    /// Soft cap on the logits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logit_softcap: Option<f64>,
    /// The head shares the embedding's weights.
    pub tied: bool,
    /// Initialisation.
    #[serde(default)]
    pub init: InitConfig,
}

impl Config for DecoderConfig {}

impl DecoderConfig {
    /// The paper's defaults for the given sizes: HybridNorm*, SwiGLU of width 8/3·d_model, RoPE θ = 500000, tied head.
    pub fn new(vocab_size: usize, d_model: usize, n_heads: usize, n_layers: usize) -> Self {
        Self {
            vocab_size,
            padded_vocab_size: vocab_size,
            d_model,
            n_layers,
            n_heads,
            n_kv_heads: n_heads,
            head_dim: None,
            d_ff: (8 * d_model / 3).next_multiple_of(8),
            max_seq_len: 4096,
            activation: Activation::default(),
            placement: Placement::default(),
            norm: NormStyle::default(),
            embedding_norm: None,
            final_norm: None,
            embedding_scale: None,
            rope: RotaryConfig::default(),
            local_rope: None,
            bias: false,
            attention_bias: None,
            feed_forward_bias: None,
            head_bias: None,
            clip_qkv: None,
            clip_normed: false,
            softmax_scale: None,
            attention_softcap: None,
            sliding_window: None,
            global_layers: Vec::new(),
            logit_scale: None,
            logit_softcap: None,
            tied: true,
            init: InitConfig::default(),
        }
    }

    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("n_layers", self.n_layers),
            ("d_model", self.d_model),
            ("d_ff", self.d_ff),
            ("n_heads", self.n_heads),
            ("max_seq_len", self.max_seq_len),
        ] {
            positive(field, value)?;
        }
        // Far beyond any model, and small enough that no count of parameters overflows.
        for (field, value, most) in [
            ("padded_vocab_size", self.padded_vocab_size, 1 << 28),
            ("n_layers", self.n_layers, 1 << 14),
            ("d_model", self.d_model, 1 << 20),
            ("d_ff", self.d_ff, 1 << 22),
            ("n_heads", self.n_heads, 1 << 16),
            ("head_dim", self.head_dim(), 1 << 16),
            (
                "n_heads · head_dim",
                self.n_heads.saturating_mul(self.head_dim()),
                1 << 22,
            ),
        ] {
            if value > most {
                return Err(ConfigError::new(field, value, format!("at most {most}")));
            }
        }
        if self.padded_vocab_size < self.vocab_size {
            return Err(ConfigError::new(
                "padded_vocab_size",
                self.padded_vocab_size,
                format!("at least vocab_size = {}", self.vocab_size),
            ));
        }
        if self.head_dim.is_none() && !self.d_model.is_multiple_of(self.n_heads) {
            return Err(ConfigError::new(
                "n_heads",
                self.n_heads,
                format!(
                    "a divisor of d_model = {}, or an explicit head_dim",
                    self.d_model
                ),
            ));
        }
        for (field, value) in [
            ("embedding_scale", self.embedding_scale),
            ("logit_scale", self.logit_scale),
            ("logit_softcap", self.logit_softcap),
        ] {
            if let Some(value) = value {
                positive_real(field, value)?;
            }
        }
        positive_real("norm.epsilon", self.norm.epsilon)?;
        self.validate_global_layers()?;
        for layer in 0..self.n_layers {
            self.attention(layer).validate()?;
        }
        self.placement.equations(self.n_layers)?;
        self.initializer()?;
        Ok(())
    }

    /// Refuses fields about windows that nothing has.
    fn validate_global_layers(&self) -> Result<(), ConfigError> {
        if let Some(layer) = self.global_layers.iter().find(|l| **l >= self.n_layers) {
            let allowed = format!("layers below n_layers = {}", self.n_layers);
            return Err(ConfigError::new("global_layers", layer, allowed));
        }
        let allowed = "only together with sliding_window";
        match (&self.sliding_window, &self.local_rope) {
            (None, Some(rope)) => Err(ConfigError::new("local_rope.theta", rope.theta, allowed)),
            (None, None) if !self.global_layers.is_empty() => {
                let layers = format!("{:?}", self.global_layers);
                Err(ConfigError::new("global_layers", layers, allowed))
            }
            _ => Ok(()),
        }
    }

    /// Tokens that a query of block `layer` sees, itself included; `None` for all before it.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window
            .filter(|_| !self.global_layers.contains(&layer))
    }

    /// The initialisation in use: the configured one, or the placement's default.
    pub fn init_scheme(&self) -> InitScheme {
        self.init.scheme.unwrap_or(self.placement.default_init())
    }

    /// Known clashes of this configuration, each a sentence; none of them is an error.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self
            .placement
            .clash(self.init_scheme())
            .into_iter()
            .collect();
        let unbounded = (0..self.n_layers).find(|layer| {
            self.placement
                .layer(*layer, self.n_layers)
                .is_ok_and(|n| n.is_attention_unbounded())
        });
        if let Some(layer) = unbounded {
            warnings.push(format!(
                "placement \"{}\": nothing bounds the scale of attention's output in layer {layer} (no norm before it, none on values or context); the paper's QK-Post diverges this way",
                self.placement
            ));
        }
        warnings
    }

    /// The attention of block `layer`, from 0; the placement sets its norms.
    pub fn attention(&self, layer: usize) -> AttentionConfig {
        let window = self.window(layer);
        let local = self.local_rope.as_ref().filter(|_| window.is_some());
        AttentionConfig {
            n_kv_heads: self.n_kv_heads,
            head_dim: self.head_dim(),
            norm_style: self.norm.clone(),
            rope: Some(local.unwrap_or(&self.rope).clone()),
            bias: self.attention_bias.unwrap_or(self.bias),
            clip_qkv: self.clip_qkv,
            clip_normed: self.clip_normed,
            softmax_scale: self.softmax_scale,
            softcap: self.attention_softcap,
            window,
            ..AttentionConfig::new(self.d_model, self.n_heads)
        }
    }

    /// The dense feed-forward layer.
    pub fn feed_forward(&self) -> DenseFeedForwardConfig {
        DenseFeedForwardConfig {
            d_model: self.d_model,
            d_ff: self.d_ff,
            activation: self.activation,
            bias: self.feed_forward_bias.unwrap_or(self.bias),
        }
    }

    /// Whether an untied head has a bias.
    pub(super) fn has_head_bias(&self) -> bool {
        self.head_bias.unwrap_or(self.bias)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
            .unwrap_or_else(|| self.d_model.checked_div(self.n_heads).unwrap_or(0))
    }

    /// Whether a norm stands before the head.
    ///
    /// # Errors
    /// When the placement does not fit the number of layers.
    pub fn has_final_norm(&self) -> Result<bool, ConfigError> {
        match self.final_norm {
            Some(wanted) => Ok(wanted),
            None => self.placement.final_norm(self.n_layers),
        }
    }

    /// Whether a norm stands after the embedding.
    pub fn has_embedding_norm(&self) -> bool {
        let placement = self.placement.embedding_norm();
        self.embedding_norm.unwrap_or(placement)
    }

    /// The rule that draws this model's parameters.
    ///
    /// # Errors
    /// When a deviation is not allowed.
    pub fn initializer(&self) -> Result<Initializer, ConfigError> {
        let default = self.placement.default_init();
        Initializer::new(&self.init, default, self.d_model, self.n_layers)
    }
}
