//! The reference's model configuration and what it means here.

use hybridnorm_core::{
    Activation, DecoderConfig, InitConfig, InitScheme, LayerNorms, NormKind, NormSite, NormStyle,
    Placement, QkvNormSites, ResidualNorms, RotaryConfig,
};
use hybridnorm_moe::ModelConfig;
use serde::Deserialize;

use super::positions::{self, Positions};
use super::sparse::SparseFields;
use crate::error::{InteropError, unsupported};

/// `ModelConfig` of both releases, dense and mixture of experts. Fields that change nothing here (devices, flash attention, precision) are not
/// read; fields that would change the mathematics and cannot be expressed are refused.
#[derive(Debug, Clone, Deserialize)]
#[allow(missing_docs, reason = "the names are the reference's own")]
pub struct OfficialConfig {
    pub d_model: usize,
    pub n_heads: usize,
    pub n_layers: usize,
    #[serde(default)]
    pub n_kv_heads: Option<usize>,
    #[serde(default)]
    pub multi_query_attention: Option<bool>,
    #[serde(default)]
    pub clip_qkv: Option<f64>,
    #[serde(default = "four")]
    pub mlp_ratio: usize,
    #[serde(default)]
    pub mlp_hidden_size: Option<usize>,
    #[serde(default = "swiglu")]
    pub activation_type: String,
    #[serde(default = "sequential")]
    pub block_type: String,
    #[serde(default = "one")]
    pub block_group_size: usize,
    #[serde(default)]
    pub alibi: bool,
    #[serde(default)]
    pub rope: bool,
    #[serde(default = "theta")]
    pub rope_theta: f64,
    #[serde(default)]
    pub attention_dropout: f64,
    #[serde(default)]
    pub residual_dropout: f64,
    #[serde(default)]
    pub embedding_dropout: f64,
    #[serde(default)]
    pub attention_layer_norm: bool,
    #[serde(default)]
    pub use_query_norm: bool,
    #[serde(default)]
    pub use_key_norm: bool,
    #[serde(default)]
    pub use_value_norm: bool,
    #[serde(default)]
    pub use_context_norm: bool,
    #[serde(default)]
    pub attn_residual_after_norm: bool,
    #[serde(default)]
    pub ffn_residual_after_norm: bool,
    #[serde(default = "yes")]
    pub attn_norm: bool,
    #[serde(default = "yes")]
    pub ffn_norm: bool,
    #[serde(default)]
    pub norm_pos_special_config: Option<String>,
    #[serde(default)]
    pub embedding_layer_norm: bool,
    #[serde(default = "default_norm")]
    pub layer_norm_type: String,
    #[serde(default = "yes")]
    pub layer_norm_with_affine: bool,
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    #[serde(default = "yes")]
    pub attention_layer_norm_with_affine: bool,
    #[serde(default = "context")]
    pub max_sequence_length: usize,
    #[serde(default = "yes")]
    pub include_bias: bool,
    #[serde(default)]
    pub bias_for_layer_norm: Option<bool>,
    #[serde(default)]
    pub scale_logits: bool,
    pub vocab_size: usize,
    #[serde(default)]
    pub embedding_size: Option<usize>,
    #[serde(default = "yes")]
    pub weight_tying: bool,
    #[serde(default = "normal")]
    pub init_fn: String,
    #[serde(default = "init_std")]
    pub init_std: f64,
    #[serde(default)]
    pub init_cutoff_factor: Option<f64>,
    #[serde(default)]
    pub scale_emb_init: bool,
    #[serde(default)]
    pub emb_init_std: Option<f64>,
    #[serde(default)]
    pub norm_after: bool,
    /// Fields whose names begin with `moe_`; read where `block_type` is `moe`.
    #[serde(flatten)]
    pub sparse: SparseFields,
}

fn yes() -> bool {
    true
}
fn one() -> usize {
    1
}
fn four() -> usize {
    4
}
fn theta() -> f64 {
    10_000.0
}
fn epsilon() -> f64 {
    1e-5
}
fn init_std() -> f64 {
    0.02
}
fn context() -> usize {
    1024
}
fn swiglu() -> String {
    "swiglu".to_string()
}
fn sequential() -> String {
    "sequential".to_string()
}
fn default_norm() -> String {
    "default".to_string()
}
fn normal() -> String {
    "normal".to_string()
}

impl OfficialConfig {
    /// The same model as a [`ModelConfig`].
    ///
    /// # Errors
    /// Names the field that cannot be expressed.
    pub fn to_model(&self) -> Result<ModelConfig, InteropError> {
        let decoder = self.decoder()?;
        let sparse = match self.is_sparse() {
            true => Some(self.sparse.to_sparse(&decoder)?),
            false => None,
        };
        let model = ModelConfig { decoder, sparse };
        model.validate()?;
        Ok(model)
    }

    fn is_sparse(&self) -> bool {
        self.block_type == "moe"
    }

    fn decoder(&self) -> Result<DecoderConfig, InteropError> {
        self.refuse_the_inexpressible()?;
        let norm = NormStyle {
            kind: match self.layer_norm_type.as_str() {
                "rms" => NormKind::Rms,
                // `low_precision` differs under autocast only.
                "default" | "low_precision" => NormKind::Layer,
                other => {
                    return unsupported("layer_norm_type", other, "rms, default or low_precision");
                }
            },
            epsilon: self.layer_norm_eps,
            affine: self.layer_norm_with_affine,
            attention_affine: self.attention_layer_norm_with_affine,
            bias: self.bias_for_layer_norm.unwrap_or(self.include_bias),
            unit_offset: false,
        };
        let activation = match self.activation_type.as_str() {
            "swiglu" => Activation::SwiGlu,
            "gelu" => Activation::Gelu,
            "relu" => Activation::Relu,
            other => return unsupported("activation_type", other, "swiglu, gelu or relu"),
        };
        let hidden = self
            .mlp_hidden_size
            .unwrap_or(self.mlp_ratio * self.d_model);
        let multi_query = self.multi_query_attention == Some(true);
        let config = DecoderConfig {
            vocab_size: self.vocab_size,
            padded_vocab_size: self.embedding_size.unwrap_or(self.vocab_size),
            d_model: self.d_model,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self
                .n_kv_heads
                .unwrap_or(if multi_query { 1 } else { self.n_heads }),
            head_dim: None,
            d_ff: if activation.is_gated() {
                hidden / 2
            } else {
                hidden
            },
            max_seq_len: self.max_sequence_length,
            activation,
            placement: self.placement()?,
            norm,
            embedding_norm: Some(self.embedding_layer_norm),
            final_norm: Some(true),
            embedding_scale: None,
            rope: RotaryConfig {
                theta: self.rope_theta,
                scaling: None,
            },
            local_rope: None,
            bias: self.include_bias,
            attention_bias: None,
            feed_forward_bias: None,
            head_bias: None,
            clip_qkv: self.clip_qkv,
            clip_normed: false,
            softmax_scale: None,
            attention_softcap: None,
            sliding_window: None,
            global_layers: Vec::new(),
            logit_scale: self
                .scale_logits
                .then(|| 1.0 / (self.d_model as f64).sqrt()),
            logit_softcap: None,
            tied: self.weight_tying,
            init: self.init()?,
        };
        config.validate()?;
        Ok(config)
    }

    fn refuse_the_inexpressible(&self) -> Result<(), InteropError> {
        if self.alibi {
            return unsupported("alibi", true, "only rotary positions are implemented");
        }
        if !self.rope {
            return unsupported(
                "rope",
                false,
                "learned position embeddings are not implemented",
            );
        }
        if self.block_type != "sequential" && !self.is_sparse() {
            let reason = "only sequential and moe blocks are the paper's";
            return unsupported("block_type", &self.block_type, reason);
        }
        // The moe block does not read it.
        if self.norm_after && !self.is_sparse() {
            let reason = "it replaces the norm positions that the paper is about";
            return unsupported("norm_after", true, reason);
        }
        if self.attention_layer_norm && (self.use_query_norm || self.use_key_norm) {
            let reason = "the reference forbids it together with use_query_norm or use_key_norm";
            return unsupported("attention_layer_norm", true, reason);
        }
        if self.block_group_size != 1 {
            let reason = "grouped blocks have other tensor names";
            return unsupported("block_group_size", self.block_group_size, reason);
        }
        for (field, value) in [
            ("attention_dropout", self.attention_dropout),
            ("residual_dropout", self.residual_dropout),
            ("embedding_dropout", self.embedding_dropout),
        ] {
            if value != 0.0 {
                return unsupported(
                    field,
                    value,
                    "dropout is not implemented; all published runs use 0",
                );
            }
        }
        Ok(())
    }

    /// The norm positions, layer by layer (paper.md §1.3).
    fn placement(&self) -> Result<Placement, InteropError> {
        let base = Positions {
            attn_norm: self.attn_norm,
            attn_residual: self.attn_residual_after_norm,
            ffn_norm: self.ffn_norm,
            ffn_residual: self.ffn_residual_after_norm,
        };
        let special = self.norm_pos_special_config.as_deref().unwrap_or("");
        let positions = positions::resolve(base, special, self.n_layers)
            .or_else(|reason| unsupported("norm_pos_special_config", special, &reason))?;
        let site = |on: bool| on.then_some(NormSite::PER_HEAD);
        let qkv = QkvNormSites {
            query: site(self.use_query_norm || self.attention_layer_norm),
            key: site(self.use_key_norm || self.attention_layer_norm),
            value: site(self.use_value_norm),
            context: site(self.use_context_norm),
        };
        let around = |norm: bool, residual: bool| match (norm, residual) {
            (false, _) => ResidualNorms::PLAIN,
            (true, false) => ResidualNorms::PRE,
            (true, true) => ResidualNorms::SHIFTED,
        };
        let layers: Vec<LayerNorms> = positions
            .iter()
            .map(|p| {
                LayerNorms::new(
                    qkv,
                    around(p.attn_norm, p.attn_residual),
                    around(p.ffn_norm, p.ffn_residual),
                )
            })
            .collect();
        Ok(Placement::from_layers(&layers)?)
    }

    /// The initialisation (`initialization.py`): a cutoff of 3 is the default of all but `normal`.
    fn init(&self) -> Result<InitConfig, InteropError> {
        let (scheme, cutoff) = match self.init_fn.as_str() {
            "normal" => (InitScheme::Normal, 0.0),
            "mitchell" => (InitScheme::Mitchell, 3.0),
            "full_megatron" => (InitScheme::Megatron, 3.0),
            other => return unsupported("init_fn", other, "normal, mitchell or full_megatron"),
        };
        let scaled = || (self.d_model as f64).sqrt() * self.init_std;
        let scale_embedding = self.scale_emb_init && scheme == InitScheme::Megatron;
        Ok(InitConfig {
            scheme: Some(scheme),
            std: Some(self.init_std),
            embedding_std: self.emb_init_std.or_else(|| scale_embedding.then(scaled)),
            cutoff: self.init_cutoff_factor.unwrap_or(cutoff),
            ..InitConfig::default()
        })
    }
}
