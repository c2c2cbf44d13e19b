//! A model's cross-entropy on held-out text, told in nats per token and in bits per byte.

use burn::tensor::{Device, Tensor, TensorData, TensorReadError};
use hybridnorm_core::{Decoder, FeedForward, Pass};
use thiserror::Error;

use super::costs::next_costs;
use crate::data::{DataError, TokenizerError, Validation, ValidationBatch};
use crate::engine::{Stages, documents};

/// Why a model could not be scored.
#[derive(Debug, Error)]
pub enum ScoreError {
    /// The windows cannot be batched.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The tokenizer refuses a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The device failed.
    #[error("the device failed while losses were read: {0}")]
    Device(String),
    /// The model computed no numbers.
    #[error("a loss is not a finite number: the model's weights or the device are damaged")]
    NotFinite,
    /// An answer is longer than what the model sees at once.
    #[error(
        "{task}, question {question}: an answer has {tokens} tokens, and the model sees {context} at once"
    )]
    TooLong {
        /// The task.
        task: String,
        /// Which of its questions.
        question: String,
        /// Tokens of the answer.
        tokens: usize,
        /// Tokens that the model sees.
        context: usize,
    },
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

/// Scores `model`, which lives on `device`, on every window of `validation`, `rows` of them at a time. With the id that ends
/// documents in `mask`, tokens attend to their own document only. As many logits exist at once as `stages` says.
///
/// # Errors
/// When `rows` is 0, or the device fails.
pub fn score<F: FeedForward>(
    model: &Decoder<F>,
    validation: &Validation,
    rows: usize,
    mask: Option<u32>,
    stages: Stages,
    device: &Device,
) -> Result<Score, ScoreError> {
    let mut nats = 0.0;
    for batch in validation.batches(rows)? {
        nats += batch_nats(model, &batch, mask, stages, device)?;
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
    mask: Option<u32>,
    stages: Stages,
    device: &Device,
) -> Result<f64, ScoreError> {
    let seq = batch.tokens.len() / batch.rows - 1;
    let ids = batch.tokens.iter().map(|&id| i64::from(id)).collect();
    let tokens = TensorData::new(ids, [batch.rows, seq + 1]);
    let mut pass = match mask {
        None => Pass::causal(),
        Some(end) => Pass::documents(documents(&batch.tokens, seq, end, device)),
    };
    let costs = next_costs(model, Tensor::from_data(tokens, device), &mut pass, stages)?;
    let rows = costs.chunks_exact(seq).zip(&batch.targets);
    let counted = rows.flat_map(|(costs, counted)| &costs[..*counted]);
    Ok(counted.map(|cost| f64::from(*cost)).sum())
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use hybridnorm_core::DecoderConfig;
    use hybridnorm_testing::{apply, every_device};

    use super::*;
    use crate::data::{Corpus, Document, TextSplit, Tokenizer};

    /// A model that knows nothing spends log2 V bits on every token, ends of documents included, and these are shared
    /// out over the bytes of the text.
    #[apply(every_device!)]
    fn a_uniform_model_costs_the_logarithm_of_its_vocabulary(#[case] device: &Device) {
        let texts = ["twelve bytes", "and sixteen more", "né", "x"];
        let documents: Vec<Document> = texts
            .iter()
            .cycle()
            .take(60)
            .enumerate()
            .map(|(i, text)| Document {
                name: i.to_string(),
                text: format!("{text} {i}"),
            })
            .collect();
        let corpus = Corpus {
            bytes: documents.iter().map(|d| d.text.len() as u64).sum(),
            documents,
            description: String::new(),
            sources: Vec::new(),
            notes: Vec::new(),
            hash: String::new(),
        };
        let split = TextSplit::new(&corpus, 0.3).unwrap();
        let held_out: usize = split.validation.iter().map(|text| text.len()).sum();
        let ends = split.validation.len();
        let tokens = split.tokenize(&Tokenizer::Byte).unwrap();
        let validation = Validation::new(&tokens.validation, 7, None).unwrap();
        let mut model = DecoderConfig::new(257, 8, 2, 1).init(device).unwrap();
        model.embedding.weight = Param::from_tensor(Tensor::zeros([257, 8], device));
        for (rows, logit_rows) in [(1, None), (3, Some(4)), (100, None)] {
            let stages = Stages {
                logit_rows,
                ..Stages::default()
            };
            let score = score(&model, &validation, rows, None, stages, device).unwrap();
            assert_eq!(score.targets, (held_out + ends) as u64);
            assert_eq!(score.bytes, held_out as u64);
            assert!((score.loss() - 257f64.ln()).abs() < 1e-6);
            let expected = 257f64.log2() * (held_out + ends) as f64 / held_out as f64;
            assert!((score.bits_per_byte() - expected).abs() < 1e-5);
        }
    }
}
