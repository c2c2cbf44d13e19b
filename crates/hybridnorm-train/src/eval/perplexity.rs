//! A model's cross-entropy on held-out text, told in nats per token and in bits per byte.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData, TensorReadError};
use hybridnorm_core::loss::token_losses;
use hybridnorm_core::{Decoder, FeedForward};
use thiserror::Error;

use crate::data::{DataError, Validation, ValidationBatch};

/// Why a model could not be scored.
#[derive(Debug, Error)]
pub enum ScoreError {
    /// The windows cannot be batched.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device failed.
    #[error("the device failed while the validation loss was read: {0}")]
    Device(String),
}

impl From<TensorReadError> for ScoreError {
    fn from(error: TensorReadError) -> Self {
        Self::Device(error.to_string())
    }
}

/// The cross-entropy of a text under a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Sum of the cross-entropy over all targets, in nats.
    pub nats: f64,
    /// Tokens that were predicted, ends of documents included.
    pub targets: u64,
    /// UTF-8 bytes behind them; an end of document stands for none.
    pub bytes: u64,
}

impl Score {
    /// Nats per token: the validation loss.
    pub fn loss(&self) -> f64 {
        self.nats / self.targets as f64
    }

    /// What the loss means as a choice among equals: `exp(loss)`, per token.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// Bits per byte of text, comparable between tokenizers.
    pub fn bits_per_byte(&self) -> f64 {
        self.nats / core::f64::consts::LN_2 / self.bytes as f64
    }
}

/// Scores `model`, which lives on `device`, on every window of `validation`, `rows` of them at a time.
///
/// # Errors
/// When `rows` is 0, or the device fails.
pub fn score<F: FeedForward>(
    model: &Decoder<F>,
    validation: &Validation,
    rows: usize,
    device: &Device,
) -> Result<Score, ScoreError> {
    let mut nats = 0.0;
    for batch in validation.batches(rows)? {
        nats += batch_nats(model, &batch, device)?;
    }
    Ok(Score {
        nats,
        targets: validation.targets(),
        bytes: validation.bytes(),
    })
}

/// Summed cross-entropy of the targets that count in `batch`.
fn batch_nats<F: FeedForward>(
    model: &Decoder<F>,
    batch: &ValidationBatch,
    device: &Device,
) -> Result<f64, ScoreError> {
    let rows = batch.rows;
    let seq = batch.tokens.len() / rows - 1;
    let ids = batch.tokens.iter().map(|&id| i64::from(id)).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows, seq + 1]), device);
    let ignored: Vec<bool> = batch
        .targets
        .iter()
        .flat_map(|&counted| (0..seq).map(move |position| position >= counted))
        .collect();
    let ignored = ignored
        .contains(&true)
        .then(|| Tensor::<1, Bool>::from_data(TensorData::new(ignored, [rows * seq]), device));
    let logits = model.forward(tokens.clone().narrow(1, 0, seq));
    let [_, _, vocab] = logits.dims();
    let targets = tokens.narrow(1, 1, seq).reshape([rows * seq]);
    let losses = token_losses(logits.reshape([rows * seq, vocab]), targets, ignored);
    let nll: Vec<f32> = losses.nll.try_into_vec_as()?;
    Ok(nll.into_iter().map(f64::from).sum())
}
