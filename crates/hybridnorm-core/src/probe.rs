//! What a forward pass reports of itself, layer by layer, without keeping its values.
//!
//! | figure | definition |
//! |---|---|
//! | RMS of the stream | `√(mean x²)` over all sequences, tokens and channels |
//! | token similarity | mean cosine of all pairs of different tokens of a sequence (Noci et al., arXiv 2206.03126) |
//! | attention entropy | `−Σ_j p_ij ln p_ij` in nats, a mean over sequences and queries, for each head (Jha & Reagen, arXiv 2410.09637) |
//! | largest logit | the largest score that is not masked, scaled and capped as it goes into the softmax (arXiv 2309.14322) |
//!
//! Attention is looked at in blocks of queries, so that scores never exist as a whole.

use burn::tensor::{FloatDType, Tensor, TensorReadError};

/// What one pass reports, still on the device. Made by [`Pass::probed`](crate::Pass::probed).
#[derive(Debug, Default)]
pub struct Probe {
    /// RMS and token similarity `[2]`, before the first block and behind each.
    streams: Vec<Tensor<1>>,
    /// Entropy of each head, then the largest logit, `[heads + 1]`, of each block.
    attention: Vec<Tensor<1>>,
}

/// What one pass reported. A figure that could not be computed is NaN or infinite.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeFigures {
    /// The stream before the first block.
    pub embedding: StreamFigures,
    /// Each block, in order.
    pub layers: Vec<LayerFigures>,
}

/// What there is to say of the residual stream at one depth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamFigures {
    /// Root of its mean square.
    pub rms: f64,
    /// Mean cosine of all pairs of different tokens of a sequence; NaN where a sequence has one token.
    pub token_similarity: f64,
}

/// What there is to say of one block.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerFigures {
    /// The stream behind it.
    pub stream: StreamFigures,
    /// Mean entropy of each head's attention, in nats.
    pub entropy: Vec<f64>,
    /// The largest score that is not masked.
    pub largest_logit: f64,
}

impl LayerFigures {
    /// Entropy over all heads.
    pub fn mean_entropy(&self) -> f64 {
        self.entropy.iter().sum::<f64>() / self.entropy.len() as f64
    }

    /// Entropy of the head that has the least; NaN where one is.
    pub fn least_entropy(&self) -> f64 {
        let least = |least: f64, entropy: &f64| match entropy.is_nan() {
            true => *entropy,
            false => least.min(*entropy),
        };
        self.entropy.iter().fold(f64::INFINITY, least)
    }
}

impl Probe {
    /// Adds the stream at the next depth, `[batch, seq, d_model]`.
    pub(crate) fn add_stream(&mut self, x: Tensor<3>) {
        let [batch, seq, _] = x.dims();
        let x = x.cast(FloatDType::F32);
        let square = x.clone().square();
        let rms = square.clone().mean().sqrt();
        let length = square.sum_dim(2).sqrt().clamp_min(f32::MIN_POSITIVE);
        let unit = x / length;
        // Σ_{i≠j} cos = ‖Σ_i u_i‖² − Σ_i ‖u_i‖²
        let all = unit.clone().sum_dim(1).square().sum();
        let own = unit.square().sum();
        let pairs = batch as f64 * seq as f64 * (seq as f64 - 1.0);
        let similarity = match seq > 1 {
            true => (all - own) / pairs,
            false => all * f32::NAN,
        };
        self.streams.push(Tensor::cat(vec![rms, similarity], 0));
    }

    /// Adds the attention of the next block: entropy of each head `[heads]`, largest logit `[1]`.
    pub(crate) fn add_attention(&mut self, entropy: Tensor<1>, largest: Tensor<1>) {
        self.attention.push(Tensor::cat(vec![entropy, largest], 0));
    }

    /// Reads one small tensor back from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(self) -> Result<ProbeFigures, TensorReadError> {
        let (streams, heads) = (self.streams.len(), self.attention.iter());
        let heads: Vec<usize> = heads.map(|figures| figures.dims()[0] - 1).collect();
        let parts: Vec<Tensor<1>> = self.streams.into_iter().chain(self.attention).collect();
        let values: Vec<f32> = match parts.is_empty() {
            true => Vec::new(),
            false => Tensor::cat(parts, 0).try_into_vec_as()?,
        };
        let mut values = values.into_iter().map(f64::from);
        let mut next = || values.next().unwrap_or(f64::NAN);
        let streams: Vec<StreamFigures> = (0..streams)
            .map(|_| StreamFigures {
                rms: next(),
                token_similarity: next(),
            })
            .collect();
        let at = |depth: usize| {
            let nowhere = StreamFigures {
                rms: f64::NAN,
                token_similarity: f64::NAN,
            };
            streams.get(depth).copied().unwrap_or(nowhere)
        };
        let embedding = at(0);
        let layers = (1..).zip(heads).map(|(depth, heads)| LayerFigures {
            stream: at(depth),
            entropy: (0..heads).map(|_| next()).collect(),
            largest_logit: next(),
        });
        Ok(ProbeFigures {
            embedding,
            layers: layers.collect(),
        })
    }
}
