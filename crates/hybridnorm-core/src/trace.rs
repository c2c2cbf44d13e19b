//! What a forward pass computed, value by value: what verification and probes look at.

use core::fmt;

use burn::tensor::Tensor;

/// The two sublayers of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Branch {
    /// Attention and the norms around it.
    Attention,
    /// The feed-forward layer and the norms around it.
    FeedForward,
}

/// An operation of the forward pass, in the order in which they happen. Norms that a placement leaves out do not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Rows of the embedding, scaled.
    Embedding,
    /// The norm after the embedding.
    EmbeddingNorm,
    /// The norm of the running stream, which is the residual source too.
    StreamNorm,
    /// The norm of a sublayer's input only.
    InputNorm,
    /// Queries, keys and values before their norms.
    QkvProjection,
    /// The norm of the queries.
    QueryNorm,
    /// The norm of the keys.
    KeyNorm,
    /// The norm of the values.
    ValueNorm,
    /// The queries, turned by their positions.
    QueryRotation,
    /// The keys, turned by their positions.
    KeyRotation,
    /// Scaled scores before the mask.
    Scores,
    /// Attention weights.
    Softmax,
    /// Weighted values of each head.
    Context,
    /// The norm of the context.
    ContextNorm,
    /// The router's logits, of a sparse feed-forward layer.
    RouterLogits,
    /// The weights of the chosen experts.
    ExpertWeights,
    /// The feed-forward layer's first projection.
    InputProjection,
    /// Its non-linearity, gate included.
    Activation,
    /// A sublayer's output.
    Output,
    /// The norm of a sublayer's output.
    OutputNorm,
    /// The residual sum.
    Sum,
    /// The norm of that sum.
    AfterNorm,
    /// The norm before the head.
    FinalNorm,
    /// The head.
    Logits,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedding => "embedding",
            Self::EmbeddingNorm => "embedding norm",
            Self::StreamNorm => "stream norm",
            Self::InputNorm => "input norm",
            Self::QkvProjection => "QKV projection",
            Self::QueryNorm => "query norm",
            Self::KeyNorm => "key norm",
            Self::ValueNorm => "value norm",
            Self::QueryRotation => "query rotation",
            Self::KeyRotation => "key rotation",
            Self::Scores => "scores",
            Self::Softmax => "softmax",
            Self::Context => "context",
            Self::ContextNorm => "context norm",
            Self::RouterLogits => "router logits",
            Self::ExpertWeights => "expert weights",
            Self::InputProjection => "input projection",
            Self::Activation => "activation",
            Self::Output => "output projection",
            Self::OutputNorm => "output norm",
            Self::Sum => "residual sum",
            Self::AfterNorm => "norm of the sum",
            Self::FinalNorm => "final norm",
            Self::Logits => "head",
        })
    }
}

/// Where in a model an operation stands: `layer 1, attention, key norm`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The block, from 0; `None` before the first and after the last one, and in blocks used without a decoder.
    pub layer: Option<usize>,
    /// The sublayer.
    pub branch: Option<Branch>,
    /// The operation.
    pub op: Op,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "layer {layer}, ")?;
        }
        match self.branch {
            Some(Branch::Attention) => f.write_str("attention, ")?,
            Some(Branch::FeedForward) => f.write_str("feed-forward, ")?,
            None => {}
        }
        self.op.fmt(f)
    }
}

/// Every value of one forward pass, in order. Each is kept as `[batch, .., width]` with all dimensions between the first and the
/// last folded into one: `[batch, seq, d_model]` for the stream, `[batch, heads·seq, seq]` for scores.
#[derive(Debug, Default)]
pub struct Trace {
    values: Vec<(Place, Tensor<3>)>,
}

impl Trace {
    pub(crate) fn push<const D: usize>(&mut self, place: Place, value: Tensor<D>) {
        let dims = value.dims();
        let first = if D > 1 { dims[0] } else { 1 };
        let last = dims.last().copied().unwrap_or(1);
        let between = dims.iter().product::<usize>() / (first * last).max(1);
        self.values
            .push((place, value.reshape([first, between, last])));
    }

    /// All values, in the order of their computation.
    pub fn values(&self) -> &[(Place, Tensor<3>)] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_as_one_would_say_them() {
        let place = Place {
            layer: Some(1),
            branch: Some(Branch::Attention),
            op: Op::KeyNorm,
        };
        assert_eq!(place.to_string(), "layer 1, attention, key norm");
        let place = Place {
            layer: None,
            branch: None,
            op: Op::Logits,
        };
        assert_eq!(place.to_string(), "head");
    }
}
