//! How good a model is, and compared with what.

pub mod bootstrap;
pub mod choices;
mod costs;
pub mod perplexity;
pub mod questions;
mod requests;
pub mod texts;
pub mod yardstick;

use burn::tensor::Device;
use hybridnorm_core::{Decoder, FeedForward};

use crate::data::Tokenizer;
use crate::engine::Stages;
pub use costs::costs;
pub use perplexity::ScoreError;

/// A model that is examined.
#[derive(Debug, Clone, Copy)]
pub struct Examinee<'a, F: FeedForward> {
    /// The model.
    pub model: &'a Decoder<F>,
    /// What its tokens stand for.
    pub tokenizer: &'a Tokenizer,
    /// Tokens it sees at once.
    pub context: usize,
    /// Ids before every text.
    pub start: &'a [u32],
    /// What stands before a text's first token where nothing else does: `start`, or one id.
    pub blank: &'a [u32],
    /// Sequences computed at once.
    pub batch: usize,
    /// How many logits exist at once.
    pub stages: Stages,
    /// Where the model is.
    pub device: &'a Device,
}

impl<F: FeedForward> Examinee<'_, F> {
    fn costs(&self, rows: &[Vec<u32>]) -> Result<Vec<Vec<f32>>, ScoreError> {
        costs(self.model, rows, self.batch, self.stages, self.device)
    }
}
