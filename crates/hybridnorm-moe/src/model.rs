//! Whole decoders with sparse layers.

use burn::config::Config;
use burn::tensor::Device;
use hybridnorm_core::init::Initializer;
use hybridnorm_core::{ConfigError, Decoder, DecoderConfig};
use serde::{Deserialize, Serialize};

use crate::feed_forward::SparseConfig;
use crate::layer::FeedForwardLayer;

/// Which of a model's blocks have a sparse feed-forward layer; the others have the decoder's dense one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SparseLayers {
    /// All of them.
    #[default]
    All,
    /// Every n-th: blocks n−1, 2n−1, .. counted from 0 (`decoder_sparse_step` of Qwen's).
    Every(usize),
    /// These, counted from 0.
    Only(Vec<usize>),
}

impl SparseLayers {
    /// Whether block `layer` is sparse.
    pub fn contains(&self, layer: usize) -> bool {
        match self {
            Self::All => true,
            Self::Every(n) => (layer + 1).is_multiple_of(*n),
            Self::Only(layers) => layers.contains(&layer),
        }
    }

    fn validate(&self, n_layers: usize) -> Result<(), ConfigError> {
        let field = "sparse.layers";
        match self {
            Self::All => Ok(()),
            Self::Every(n) if (1..=n_layers).contains(n) => Ok(()),
            Self::Every(n) => {
                let allowed = format!("every = 1 to model.n_layers = {n_layers}");
                Err(ConfigError::new(field, format!("every = {n}"), allowed))
            }
            Self::Only(layers) if layers.is_empty() => Err(ConfigError::new(
                field,
                "only = []",
                "at least one layer, or no sparse table",
            )),
            Self::Only(layers) => match layers.iter().find(|layer| **layer >= n_layers) {
                Some(layer) => {
                    let allowed = format!("layers below model.n_layers = {n_layers}");
                    Err(ConfigError::new(field, layer, allowed))
                }
                None => Ok(()),
            },
        }
    }
}

/// A decoder, dense or sparse.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Everything but sparse layers.
    pub decoder: DecoderConfig,
    /// Its sparse layers; `None` for a dense model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<SparseConfig>,
}

impl Config for ModelConfig {}

impl From<DecoderConfig> for ModelConfig {
    fn from(decoder: DecoderConfig) -> Self {
        Self {
            decoder,
            sparse: None,
        }
    }
}

impl ModelConfig {
    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.decoder.validate()?;
        if let Some(sparse) = &self.sparse {
            sparse.validate()?;
            sparse.layers.validate(self.decoder.n_layers)?;
        }
        Ok(())
    }

    /// The sparse layers' configuration for block `layer`, if it is sparse.
    pub fn sparse_at(&self, layer: usize) -> Option<&SparseConfig> {
        self.sparse
            .as_ref()
            .filter(|sparse| sparse.layers.contains(layer))
    }

    /// Builds the model.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<Decoder<FeedForwardLayer>, ConfigError> {
        self.build(device, &self.decoder.initializer()?)
    }

    /// Builds the model without drawing its matrices: they are zeros that take no memory until they are looked at. For a loader, which
    /// puts every parameter in.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn blank(&self, device: &Device) -> Result<Decoder<FeedForwardLayer>, ConfigError> {
        self.build(device, &self.decoder.initializer()?.blank())
    }

    fn build(
        &self,
        device: &Device,
        init: &Initializer,
    ) -> Result<Decoder<FeedForwardLayer>, ConfigError> {
        self.validate()?;
        let d_model = self.decoder.d_model;
        let dense = self.decoder.feed_forward();
        self.decoder.build(device, init, |layer, init| {
            let init = init.at("feed_forward");
            match self.sparse_at(layer) {
                Some(sparse) => sparse
                    .init(d_model, &init, device)
                    .map(FeedForwardLayer::Sparse),
                None => dense.init(&init, device).map(FeedForwardLayer::Dense),
            }
        })
    }

    /// Number of parameters, without building the model: all of them, and those that work on any one token.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn num_params(&self) -> Result<(usize, usize), ConfigError> {
        self.validate()?;
        let dense = self.decoder.num_params()?;
        let replaced = self.decoder.feed_forward().num_params();
        let layers = (0..self.decoder.n_layers).filter_map(|layer| self.sparse_at(layer));
        let counts = layers.map(|sparse| sparse.num_params(self.decoder.d_model));
        Ok(
            counts.fold((dense, dense), |(all, active), (more, more_active)| {
                (all - replaced + more, active - replaced + more_active)
            }),
        )
    }
}
