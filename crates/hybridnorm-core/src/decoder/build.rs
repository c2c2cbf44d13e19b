//! A [`Decoder`] built from its configuration, and its parameters counted without building it.

use burn::tensor::Device;

use super::{Decoder, DecoderConfig};
use crate::attention::AttentionConfig;
use crate::block::{Block, BlockParts};
use crate::error::ConfigError;
use crate::feed_forward::FeedForward;
use crate::init::{Initializer, Role};

impl DecoderConfig {
    /// Builds the model with dense feed-forward layers.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<Decoder, ConfigError> {
        let config = self.feed_forward();
        self.init_with(device, |_layer, init| {
            config.init(&init.at("feed_forward"), device)
        })
    }

    /// Builds the model with feed-forward layers of the caller's own: `feed_forward(layer, rule for that layer)`.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), or what `feed_forward` returns.
    pub fn init_with<F: FeedForward>(
        &self,
        device: &Device,
        feed_forward: impl Fn(usize, &Initializer) -> Result<F, ConfigError>,
    ) -> Result<Decoder<F>, ConfigError> {
        self.build(device, &self.initializer()?, feed_forward)
    }

    /// As [`init_with`](Self::init_with), by the rule `init`.
    ///
    /// # Errors
    /// As [`init_with`](Self::init_with).
    pub fn build<F: FeedForward>(
        &self,
        device: &Device,
        init: &Initializer,
        feed_forward: impl Fn(usize, &Initializer) -> Result<F, ConfigError>,
    ) -> Result<Decoder<F>, ConfigError> {
        self.validate()?;
        let norm = |wanted: bool| {
            wanted
                .then(|| self.norm.around(self.d_model).init(device))
                .transpose()
        };
        let blocks = (0..self.n_layers)
            .map(|layer| {
                let norms = self.placement.layer(layer, self.n_layers)?;
                let init = init.at_layer(layer);
                let parts = BlockParts {
                    attention: &self.attention(layer),
                    norms: &norms,
                    style: &self.norm,
                    layer,
                };
                Block::new(parts, feed_forward(layer, &init)?, &init, device)
            })
            .collect::<Result<_, ConfigError>>()?;
        let head = [(Role::Head, "head", self.padded_vocab_size)];
        Ok(Decoder {
            embedding: init.embedding(self.padded_vocab_size, device),
            embedding_norm: norm(self.has_embedding_norm())?,
            blocks,
            final_norm: norm(self.has_final_norm()?)?,
            head: (!self.tied)
                .then(|| init.linear(self.d_model, &head, self.has_head_bias(), device)),
            embedding_scale: self.embedding_scale,
            logit_scale: self.logit_scale,
            logit_softcap: self.logit_softcap,
        })
    }

    /// Number of parameters of the dense model, without building it.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn num_params(&self) -> Result<usize, ConfigError> {
        self.validate()?;
        let norm = self.norm.around(self.d_model).num_params();
        let outside = usize::from(self.has_embedding_norm()) + usize::from(self.has_final_norm()?);
        let mut total = self.padded_vocab_size * self.d_model + norm * outside;
        if !self.tied {
            let bias = usize::from(self.has_head_bias());
            total += (self.d_model + bias) * self.padded_vocab_size;
        }
        for layer in 0..self.n_layers {
            let norms = self.placement.layer(layer, self.n_layers)?;
            let attention = AttentionConfig {
                norms: norms.qkv,
                ..self.attention(layer)
            };
            total += norm * (norms.attention.count() + norms.feed_forward.count());
            total += attention.num_params() + self.feed_forward().num_params();
        }
        Ok(total)
    }
}
