//! The data of a run: what it trains on, what it is scored on, and what is to be said about both.

use super::request::{DEFAULT_CORPUS_BYTES, Request};
use crate::data::{
    Batches, Corpus, DataError, HeldOut, SplitRule, StepBatch, TextSplit, TokenSplit,
    TokenizedCorpus,
};
use crate::engine::BatchSource;
use crate::error::Error;

/// What a run trains on and is scored on.
pub(super) struct RunData {
    pub facts: DataFacts,
    pub batches: NamedBatches,
    pub held_out: Box<dyn HeldOut>,
    /// Training text for the yardsticks: all of it, or a sample where the data was prepared before.
    pub train_text: Vec<u8>,
    /// All held-out text; absent where it is not in memory anyway.
    pub validation_text: Option<Vec<u8>>,
}

/// What the plan and the summary say about the data.
pub(super) struct DataFacts {
    pub description: String,
    pub notes: Vec<String>,
    pub bytes: u64,
    pub documents: u64,
    pub hash: String,
    pub rule: SplitRule,
    pub train: SideFacts,
    pub validation: SideFacts,
}

/// One side of the split.
#[derive(Default)]
pub(super) struct SideFacts {
    pub tokens: u64,
    pub bytes: u64,
    pub documents: u64,
}

impl SideFacts {
    fn of(split: &TokenSplit) -> Self {
        Self {
            tokens: split.tokens.len() as u64,
            bytes: split.bytes,
            documents: split.documents as u64,
        }
    }

    pub(super) fn add(&mut self, [tokens, documents, bytes]: [u64; 3]) {
        self.tokens += tokens;
        self.documents += documents;
        self.bytes += bytes;
    }
}

/// Batches that know which data they come from.
pub(super) struct NamedBatches {
    pub batches: Batches,
    /// What each source is called.
    pub names: Vec<String>,
    pub identity: String,
    pub end_of_document: u32,
}

impl BatchSource for NamedBatches {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        self.batches.batch(step)
    }

    fn end_of_document(&self) -> Option<u32> {
        Some(self.end_of_document)
    }

    fn documents(&self, step: u64) -> Vec<String> {
        let place = |index| {
            let place = self.batches.place(index);
            let name = self.names.get(place.source).map_or("", String::as_str);
            format!("{name}, from token {}", place.token)
        };
        self.batches.sequences(step).map(place).collect()
    }

    fn identity(&self) -> Option<String> {
        Some(self.identity.clone())
    }
}

impl RunData {
    /// Reads or opens what the request names.
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        match &request.sources {
            Some(sources) => sources.read(&request.config, &request.tokenizer),
            None => Self::tokenize(request),
        }
    }

    /// Text that is tokenized on the spot and kept in memory.
    fn tokenize(request: &Request) -> Result<Self, Error> {
        let (config, training) = (&request.config.data, &request.config.training);
        let corpus = match &config.path {
            Some(path) => Corpus::from_path(path)?,
            None => Corpus::from_cargo_registry(DEFAULT_CORPUS_BYTES)?,
        };
        let split = TextSplit::new(&corpus, config.validation_fraction)?;
        let TokenizedCorpus { train, validation } = split.tokenize(&request.tokenizer)?;
        let facts = DataFacts {
            description: corpus.description.clone(),
            notes: corpus.notes.clone(),
            bytes: corpus.bytes,
            documents: corpus.documents.len() as u64,
            hash: corpus.hash.clone(),
            rule: split.rule,
            train: SideFacts::of(&train),
            validation: SideFacts::of(&validation.split),
        };
        let batches = Batches::new(train.tokens, training.seq, training.batch, training.seed)?;
        Ok(Self {
            batches: NamedBatches {
                batches: batches.with_repetition_filter(config.repetition_filter),
                names: vec!["training text".to_string()],
                identity: format!(
                    "{} as {}, {} held out",
                    facts.hash,
                    request.tokenizer.identity(),
                    config.validation_fraction
                ),
                end_of_document: request.tokenizer.end_of_document()?,
            },
            facts,
            held_out: Box::new(validation),
            train_text: split.train.concat().into_bytes(),
            validation_text: Some(split.validation.concat().into_bytes()),
        })
    }
}
