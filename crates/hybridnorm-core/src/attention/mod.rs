//! Causal grouped-query attention with norms on queries, keys, values and context.
//!
//! Shape letters: B batch, T query positions, S key positions, H query heads, K key/value heads, G = H/K queries that
//! share a key/value head, D head_dim.

pub mod cache;
mod fused;
pub mod mask;
mod observe;
pub mod qkv_norm;
pub mod rope;
mod rope_scaling;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor, activation};
use hybridnorm_kernels::softcap;
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive, positive_real};
use crate::init::{Initializer, Role};
use crate::norm::NormStyle;
use crate::pass::Pass;
use crate::placement::QkvNormSites;
use crate::trace::Op;
use qkv_norm::{QkvNorms, apply};
use rope::RotaryConfig;

/// Configuration of an [`Attention`] layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// Width of the stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`. 1 is multi-query attention.
    pub n_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Which of queries, keys, values and context are normalised.
    pub norms: QkvNormSites,
    /// How.
    pub norm_style: NormStyle,
    /// Rotary position embedding; `None` leaves positions out.
    pub rope: Option<RotaryConfig>,
    /// Biases on both projections.
    pub bias: bool,
    /// Clamps queries, keys and values to ± this, before their norms.
    pub clip_qkv: Option<f64>,
    /// Clamps them behind their norms instead (OLMoE in transformers).
    #[serde(default)]
    pub clip_normed: bool,
    /// Factor on the scores; `None` is 1/√head_dim.
    pub softmax_scale: Option<f64>,
    /// `cap · tanh(score / cap)` on the scores (Gemma 2).
    pub softcap: Option<f64>,
    /// Tokens a query sees, itself included; `None` sees all before it.
    pub window: Option<usize>,
}

impl AttentionConfig {
    /// Plain multi-head attention with RoPE.
    pub fn new(d_model: usize, n_heads: usize) -> Self {
        Self {
            d_model,
            n_heads,
            n_kv_heads: n_heads,
            head_dim: d_model.checked_div(n_heads).unwrap_or(0),
            norms: QkvNormSites::NONE,
            norm_style: NormStyle::default(),
            rope: Some(RotaryConfig::default()),
            bias: false,
            clip_qkv: None,
            clip_normed: false,
            softmax_scale: None,
            softcap: None,
            window: None,
        }
    }

    /// Refuses sizes and factors that cannot be built.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("d_model", self.d_model)?;
        positive("n_heads", self.n_heads)?;
        positive("n_kv_heads", self.n_kv_heads)?;
        positive("head_dim", self.head_dim)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(ConfigError::new(
                "n_kv_heads",
                self.n_kv_heads,
                format!("a divisor of n_heads = {}", self.n_heads),
            ));
        }
        if let Some(rope) = &self.rope {
            rope.validate()?;
            if !self.head_dim.is_multiple_of(2) {
                return Err(ConfigError::new(
                    "head_dim",
                    self.head_dim,
                    "an even number, for RoPE",
                ));
            }
        }
        for (field, value) in [
            ("clip_qkv", self.clip_qkv),
            ("softmax_scale", self.softmax_scale),
            ("attention_softcap", self.softcap),
        ] {
            if let Some(value) = value {
                positive_real(field, value)?;
            }
        }
        if let Some(window) = self.window {
            positive("sliding_window", window)?;
        }
        if self.clip_normed && self.clip_qkv.is_none() {
            return Err(ConfigError::new(
                "clip_normed",
                true,
                "only together with clip_qkv",
            ));
        }
        Ok(())
    }

    /// Number of parameters, without building it.
    pub fn num_params(&self) -> usize {
        let (query, key_value) = self.widths();
        let bias = usize::from(self.bias);
        let norms = qkv_norm::num_params(&self.norms, &self.norm_style, self.heads());
        (self.d_model + bias) * (query + 2 * key_value) + (query + bias) * self.d_model + norms
    }

    /// Query heads, key/value heads, width of a head.
    fn heads(&self) -> (usize, usize, usize) {
        (self.n_heads, self.n_kv_heads, self.head_dim)
    }

    /// Width of all queries, and of all keys or values.
    fn widths(&self) -> (usize, usize) {
        let (query, key_value, d) = self.heads();
        (query * d, key_value * d)
    }

    /// Builds the layer with `init`'s rule; `layer` is its place in a key/value cache.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(
        &self,
        layer: usize,
        init: &Initializer,
        device: &Device,
    ) -> Result<Attention, ConfigError> {
        self.validate()?;
        let (query, key_value) = self.widths();
        let columns = [
            (Role::QueryKey, "query", query),
            (Role::QueryKey, "key", key_value),
            (Role::Value, "value", key_value),
        ];
        let output = [(Role::AttentionOutput, "output", self.d_model)];
        let heads = self.heads();
        Ok(Attention {
            qkv: init.linear(self.d_model, &columns, self.bias, device),
            norms: QkvNorms::new(&self.norms, &self.norm_style, heads, device)?,
            output: init.linear(query, &output, self.bias, device),
            settings: Settings {
                heads,
                rope: self.rope.clone(),
                clip_qkv: self.clip_qkv.filter(|_| !self.clip_normed),
                clip_normed: self.clip_qkv.filter(|_| self.clip_normed),
                scale: self
                    .softmax_scale
                    .unwrap_or(1.0 / (self.head_dim as f64).sqrt()),
                softcap: self.softcap,
                window: self.window,
                layer,
            },
        })
    }
}

/// Causal grouped-query attention. Built by [`AttentionConfig::init`].
#[derive(Module, Debug)]
pub struct Attention {
    /// Fused projection `[d_model, (H + 2K)·D]`: queries, keys, values.
    pub qkv: Linear,
    /// Norms of queries, keys, values and context.
    pub norms: QkvNorms,
    /// Output projection `[H·D, d_model]`.
    pub output: Linear,
    #[module(skip)]
    settings: Settings,
}

#[derive(Debug, Clone)]
struct Settings {
    heads: (usize, usize, usize),
    rope: Option<RotaryConfig>,
    clip_qkv: Option<f64>,
    clip_normed: Option<f64>,
    scale: f64,
    softcap: Option<f64>,
    window: Option<usize>,
    layer: usize,
}

impl Attention {
    /// # Shapes
    /// - input `[batch, seq, d_model]`
    /// - output `[batch, seq, d_model]`
    pub fn forward<R>(&self, x: Tensor<3>, pass: &mut Pass<R>) -> Tensor<3> {
        let [batch, seq, _] = x.dims();
        let (h, _, d) = self.settings.heads;
        let mut qkv = pass.linear(&self.qkv, x);
        if let Some(clip) = self.settings.clip_qkv {
            qkv = qkv.clamp(-clip, clip);
        }
        let qkv = pass.keep(Op::QkvProjection, qkv);
        if pass.is_probed() {
            self.observe(&qkv, pass);
        }
        let context = match self.fused(&qkv, pass) {
            Some(context) => {
                if pass.is_traced() {
                    // For the sake of the values in between, which one operation does not show.
                    self.context(self.split(qkv), pass);
                }
                context.reshape([batch, seq, h, d])
            }
            None => self.context(self.split(qkv), pass),
        };
        let context = apply(&self.norms.context, context, Op::ContextNorm, pass);
        pass.linear(&self.output, context.reshape([batch, seq, h * d]))
    }

    /// Queries, keys and values, each `[batch, seq, heads, head_dim]`.
    fn split(&self, qkv: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, seq, _] = qkv.dims();
        let (h, k, d) = self.settings.heads;
        let qkv = qkv.reshape([batch, seq, h + 2 * k, d]);
        [(0, h), (h, k), (h + k, k)].map(|(start, heads)| qkv.clone().narrow(2, start, heads))
    }

    /// The inner attention (eq. 5, 43–48): norms, rotation, softmax, context norm; everything between the two
    /// projections.
    ///
    /// # Shapes
    /// - `query` `[B, T, H, D]`, `key` and `value` `[B, T, K, D]`: the raw projections
    /// - output `[B, T, H·D]`
    pub fn attend<R>(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        pass: &mut Pass<R>,
    ) -> Tensor<3> {
        let (h, _, d) = self.settings.heads;
        let [b, t, _, _] = query.dims();
        let context = self.context([query, key, value], pass);
        apply(&self.norms.context, context, Op::ContextNorm, pass).reshape([b, t, h * d])
    }

    /// Queries, keys and values as the products of attention take them: normed, clipped, rotated.
    ///
    /// # Shapes
    /// - input `[B, T, heads, D]` each, output `[B, heads, T, D]`
    fn heads<R>(&self, [query, key, value]: [Tensor<4>; 3], pass: &mut Pass<R>) -> [Tensor<4>; 3] {
        let (_, _, d) = self.settings.heads;
        let ([_, t, _, _], device) = (query.dims(), query.device());
        // N(Q), N(K), N(V), each [B, heads, T, D]
        let mut query = apply(&self.norms.query, query, Op::QueryNorm, pass).swap_dims(1, 2);
        let mut key = apply(&self.norms.key, key, Op::KeyNorm, pass).swap_dims(1, 2);
        let mut value = apply(&self.norms.value, value, Op::ValueNorm, pass).swap_dims(1, 2);
        if let Some(clip) = self.settings.clip_normed {
            [query, key, value] = [query, key, value].map(|x| x.clamp(-clip, clip));
        }
        if let Some(rope) = &self.settings.rope {
            let tables = pass.rotary(rope, d, t, &device);
            query = pass.keep(Op::QueryRotation, tables.rotate(query));
            key = pass.keep(Op::KeyRotation, tables.rotate(key));
        }
        [query, key, value]
    }

    /// As [`attend`](Self::attend), before the context norm, operation by operation.
    ///
    /// # Shapes
    /// - output `[B, T, H, D]`
    fn context<R>(&self, qkv: [Tensor<4>; 3], pass: &mut Pass<R>) -> Tensor<4> {
        let (h, k, d) = self.settings.heads;
        let ([b, t, _, _], device) = (qkv[0].dims(), qkv[0].device());
        let [query, mut key, mut value] = self.heads(qkv, pass);
        let mask = pass.mask(self.settings.window, t, &device);
        if let Some(cache) = pass.cache_mut() {
            [key, value] = cache.extend(self.settings.layer, [key, value]);
        }
        let s = key.dims()[2];
        // The G queries of a group stand below each other, so keys and values are never repeated.
        let query = (query * self.settings.scale).reshape([b, k, h / k * t, d]);
        let scores = pass.matmul(query, key.swap_dims(2, 3));
        let mut scores = scores.reshape([b, h, t, s]);
        if let Some(cap) = self.settings.softcap {
            scores = softcap(scores, cap);
        }
        let scores = pass.keep(Op::Scores, scores);
        let scores = scores.mask_fill(mask.expand([b, h, t, s]), f32::NEG_INFINITY);
        let weights = pass.keep(Op::Softmax, activation::softmax(scores, 3));
        let context = pass.matmul(weights.reshape([b, k, h / k * t, s]), value);
        let context = pass.keep(Op::Context, context.reshape([b, h, t, d]));
        context.swap_dims(1, 2)
    }
}
