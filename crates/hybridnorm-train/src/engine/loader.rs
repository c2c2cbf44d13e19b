//! Token batches as Burn's data loader.

use std::error::Error;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Int, Tensor, TensorData};

use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;

use super::error::TrainError;
use super::model::TokenBatch;
use crate::data::{DataError, StepBatch, document_numbers};

/// Where training tokens come from. A batch is a pure function of its step, so data order is not state: resuming a
/// run needs the number of its step.
pub trait BatchSource: Send + Sync {
    /// What step `step`, counted from 0, trains on.
    ///
    /// # Errors
    /// When the data cannot be read.
    fn batch(&self, step: u64) -> Result<StepBatch, DataError>;

    /// The id after every document, by which documents are told apart; `None` where that is not known.
    fn end_of_document(&self) -> Option<u32> {
        None
    }

    /// Where the sequences of step `step` come from, for people; empty where that is not known.
    fn documents(&self, _step: u64) -> Vec<String> {
        Vec::new()
    }

    /// Names corpus, tokenizer and order, e.g. by a hash. A run is refused to resume on data of another identity.
    fn identity(&self) -> Option<String> {
        None
    }
}

/// What of a run's data a [`TokenLoader`] yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderShape {
    /// Sequences in a step.
    pub batch: usize,
    /// Sequences in a micro-batch; divides `batch`.
    pub micro_batch: usize,
    /// Tokens the model sees of a sequence; each is one longer.
    pub seq: usize,
    /// Rows of the embedding: token ids are below it.
    pub vocab: usize,
    /// Seed of the noise that layers may add.
    pub noise_seed: u64,
    /// The id after every document where tokens attend to their own document only.
    pub document_mask: Option<u32>,
}

/// Yields the micro-batches of steps `first..end` (counted from 0) in order.
#[derive(Clone)]
pub struct TokenLoader {
    source: Arc<dyn BatchSource>,
    shape: LoaderShape,
    /// In micro-batches from the start of the run.
    range: std::ops::Range<u64>,
    device: Device,
}

impl TokenLoader {
    /// The micro-batches of `steps`, on `device`.
    pub fn new(
        source: Arc<dyn BatchSource>,
        shape: LoaderShape,
        steps: std::ops::Range<u64>,
        device: Device,
    ) -> Self {
        let accumulation = (shape.batch / shape.micro_batch) as u64;
        Self {
            source,
            shape,
            range: steps.start * accumulation..steps.end * accumulation,
            device,
        }
    }

    /// The batch of `step`, if the source keeps its word about it.
    fn step(&self, step: u64) -> Result<StepBatch, LoadError> {
        let LoaderShape {
            batch, seq, vocab, ..
        } = self.shape;
        let read = self.source.batch(step);
        let found = read.map_err(|source| LoadError::Data(Arc::new(source)))?;
        let wrong = LoadError::Contract;
        let (tokens, rows) = (found.tokens.len(), found.masked.len());
        if tokens != batch * (seq + 1) || rows != batch {
            return Err(wrong(format!(
                "{tokens} tokens in {rows} sequences instead of {batch}·({seq} + 1)"
            )));
        }
        match found.tokens.iter().find(|id| **id as usize >= vocab) {
            Some(id) => Err(wrong(format!(
                "token id {id} is not below the model's {vocab}"
            ))),
            None => Ok(found),
        }
    }
}

/// Why a step has no batch. Burn hands it on as a [`DatasetError`], out of which it can be copied, not moved.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LoadError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(Arc<DataError>),
    /// The source broke its contract.
    #[error("{0}")]
    Contract(String),
}

impl LoadError {
    /// What `error` says of `step`, counted from 1.
    pub(crate) fn of(step: u64, error: &DatasetError) -> TrainError {
        match error.source().and_then(|source| source.downcast_ref()) {
            Some(Self::Data(source)) => TrainError::Data {
                step,
                source: source.clone(),
            },
            Some(Self::Contract(problem)) => TrainError::Batch {
                step,
                problem: problem.clone(),
            },
            None => TrainError::Batch {
                step,
                problem: error.to_string(),
            },
        }
    }
}

impl DataLoader<TokenBatch> for TokenLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TokenBatch> + 'a> {
        Box::new(Iter {
            loader: self,
            next: self.range.start,
            current: None,
        })
    }

    fn num_items(&self) -> usize {
        (self.range.end - self.range.start) as usize
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<TokenBatch>> {
        Arc::new(Self {
            device: device.clone(),
            ..self.clone()
        })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<TokenBatch>> {
        let at = |index: usize| (self.range.start + index as u64).min(self.range.end);
        Arc::new(Self {
            range: at(start)..at(end),
            ..self.clone()
        })
    }
}

struct Iter<'a> {
    loader: &'a TokenLoader,
    next: u64,
    current: Option<(u64, StepBatch)>,
}

impl Iterator for Iter<'_> {
    type Item = Result<TokenBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let TokenLoader {
            shape,
            range,
            device,
            ..
        } = self.loader;
        if self.next >= range.end {
            return None;
        }
        let accumulation = (shape.batch / shape.micro_batch) as u64;
        let (step, part) = (self.next / accumulation, self.next % accumulation);
        self.next += 1;
        let batch = match self.current.take() {
            Some((known, batch)) if known == step => batch,
            _ => match self.loader.step(step) {
                Ok(batch) => batch,
                Err(error) => return Some(Err(DatasetError::new(error))),
            },
        };
        let rows = part as usize * shape.micro_batch..(part as usize + 1) * shape.micro_batch;
        let noise = noise(shape.noise_seed, step, part);
        let micro = micro_batch(&batch, rows, shape, device);
        self.current = Some((step, batch));
        Some(Ok(TokenBatch {
            noise: Some(noise),
            ..micro
        }))
    }
}

/// The sequences `rows` of a step.
fn micro_batch(
    batch: &StepBatch,
    rows: std::ops::Range<usize>,
    shape: &LoaderShape,
    device: &Device,
) -> TokenBatch {
    let (count, length) = (rows.len(), shape.seq + 1);
    let ids = &batch.tokens[rows.start * length..rows.end * length];
    let masked = &batch.masked[rows];
    let tokens: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
    TokenBatch {
        tokens: Tensor::from_data(TensorData::new(tokens, [count, length]), device),
        documents: shape
            .document_mask
            .map(|end| documents(ids, shape.seq, end, device)),
        ignored: masked.contains(&true).then(|| {
            let ignored = masked.iter().flat_map(|masked| vec![*masked; shape.seq]);
            let ignored = TensorData::new(ignored.collect(), [count, shape.seq]);
            Tensor::from_data(ignored, device)
        }),
        noise: None,
    }
}

/// The number of the document that each input belongs to, counted in each sequence from 0.
///
/// # Shapes
/// - `ids` `[rows, seq + 1]`, row-major
/// - output `[rows, seq]`
pub(crate) fn documents(ids: &[u32], seq: usize, end: u32, device: &Device) -> Tensor<2, Int> {
    let numbers: Vec<i32> = ids
        .chunks(seq + 1)
        .flat_map(|row| document_numbers(&row[..seq], end))
        .map(|number| number as i32)
        .collect();
    let rows = ids.len() / (seq + 1);
    Tensor::from_data(TensorData::new(numbers, [rows, seq]), device)
}

impl DataLoaderIterator<TokenBatch> for Iter<'_> {
    fn progress(&self) -> Progress {
        let range = &self.loader.range;
        Progress::new(
            (self.next - range.start) as usize,
            (range.end - range.start) as usize,
            Some("micro-batches".to_string()),
        )
    }
}

/// The seed of a micro-batch's noise: a pure function of the run's seed, the step and the micro-batch's place in it.
fn noise(seed: u64, step: u64, part: u64) -> u64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(step);
    // A number of 64 bits is two of the generator's words.
    rng.set_word_pos(2 * u128::from(part));
    rng.next_u64()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_micro_batch_has_noise_of_its_own_and_keeps_it() {
        let all = || {
            let places = (0..3).flat_map(|seed| (0..20).map(move |step| (seed, step)));
            places.flat_map(|(seed, step)| (0..5).map(move |part| noise(seed, step, part)))
        };
        assert_eq!(all().collect::<BTreeSet<_>>().len(), 3 * 20 * 5);
        assert!(all().eq(all()));
    }
}
