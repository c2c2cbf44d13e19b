//! From flags to a run that is ready to start: the configuration, the data, and what to hold the result against.

use std::sync::Arc;

use super::flags::{DEFAULT_CORPUS_BYTES, Request, RunFlags};
use crate::data::{Batches, Corpus, SplitRule, TextSplit, TokenSplit, TokenizedCorpus, Validation};
use crate::engine::{BatchSource, RunDir, TrainError};
use crate::error::Error;
use crate::eval::yardstick::Yardsticks;

/// The evaluation at the end sees this many times the sequences of those before.
const FINAL_EVALUATION: usize = 4;

/// A run that is ready to start. Nothing has been written.
pub(super) struct Prepared {
    pub request: Request,
    pub data: DataFacts,
    pub batches: Arc<dyn BatchSource>,
    /// Windows of an evaluation during training.
    pub interval: Validation,
    /// Windows of the one at the end; the yardsticks speak of their text.
    pub last: Validation,
    pub yardsticks: Yardsticks,
    /// The training text and the whole validation text, for the yardsticks that take their time.
    pub texts: [Vec<u8>; 2],
}

/// What the plan and the summary say about the data.
pub(super) struct DataFacts {
    pub description: String,
    pub notes: Vec<String>,
    pub bytes: u64,
    pub documents: usize,
    pub hash: String,
    pub rule: SplitRule,
    pub train: SideFacts,
    pub validation: SideFacts,
}

/// One side of the split.
pub(super) struct SideFacts {
    pub tokens: usize,
    pub bytes: u64,
    pub documents: usize,
}

impl SideFacts {
    fn of(split: &TokenSplit) -> Self {
        Self {
            tokens: split.tokens.len(),
            bytes: split.bytes,
            documents: split.documents,
        }
    }
}

/// Batches that know which data they come from.
struct NamedBatches {
    batches: Batches,
    identity: String,
}

impl BatchSource for NamedBatches {
    fn batch(&self, step: u64) -> Vec<u32> {
        self.batches.batch(step)
    }

    fn identity(&self) -> Option<String> {
        Some(self.identity.clone())
    }
}

impl Prepared {
    /// Resolves the flags, reads the data and measures the yardsticks.
    pub(super) fn new(flags: &RunFlags) -> Result<Self, Error> {
        let request = flags.resolve()?;
        if !request.resume && is_taken(&request.out) {
            let path = request.out;
            return Err(TrainError::RunExists { path }.into());
        }
        if !request.resume {
            RunDir::probe(&request.out)?;
        }
        let config = &request.config;
        let corpus = match &config.data.path {
            Some(path) => Corpus::from_path(path)?,
            None => Corpus::from_cargo_registry(DEFAULT_CORPUS_BYTES)?,
        };
        let split = TextSplit::new(&corpus, config.data.validation_fraction)?;
        let TokenizedCorpus { train, validation } = split.tokenize(&request.tokenizer)?;
        let data = DataFacts {
            description: corpus.description.clone(),
            notes: corpus.notes.clone(),
            bytes: corpus.bytes,
            documents: corpus.documents.len(),
            hash: corpus.hash.clone(),
            rule: split.rule,
            train: SideFacts::of(&train),
            validation: SideFacts::of(&validation.split),
        };
        let training = &config.training;
        let batches = Batches::new(train.tokens, training.seq, training.batch, training.seed)?;
        let interval = training.eval_sequences;
        let last = interval.saturating_mul(FINAL_EVALUATION);
        let interval = Validation::new(validation.clone(), training.seq, Some(interval))?;
        let last = Validation::new(validation, training.seq, Some(last))?;
        let yardsticks = Yardsticks::measure(&split.train, &last.text())?;
        let validation_text = split.validation.concat().into_bytes();
        let identity = format!(
            "{} as {}, {} held out",
            data.hash,
            request.tokenizer.identity(),
            config.data.validation_fraction
        );
        Ok(Self {
            batches: Arc::new(NamedBatches { batches, identity }),
            request,
            data,
            interval,
            last,
            yardsticks,
            texts: [split.train.concat().into_bytes(), validation_text],
        })
    }
}

/// Whether something stands at `path` that a new run would disturb.
fn is_taken(path: &std::path::Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => false,
    }
}
