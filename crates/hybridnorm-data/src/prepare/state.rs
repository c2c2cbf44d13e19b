//! `progress.json`: what a preparation was begun with, and how far it is.

use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::documents::Mark;
use super::{Preparation, Progress};
use crate::{DataError, Index, Input, InputFile, Shard, Side, TokenizerRecord, Width};

/// What decides every byte of the folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub tokenizer: String,
    /// The `tokenizer.json` to copy.
    #[serde(skip)]
    pub tokenizer_file: Option<std::path::PathBuf>,
    pub vocab_size: usize,
    pub end_of_document: u32,
    pub validation_fraction: f64,
    pub deduplicate: bool,
    pub shard_tokens: u64,
    pub max_document_bytes: usize,
    pub inputs: Vec<Input>,
    /// When each input was last written, in nanoseconds since 1970. A file edited between two runs would leave half of
    /// either in the folder.
    pub changed: Vec<u128>,
}

/// How far a preparation is, after the last pair of shards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    pub settings: Settings,
    pub mark: Mark,
    pub train: Vec<Shard>,
    pub validation: Vec<Shard>,
}

impl Settings {
    pub(super) fn new(preparation: &Preparation, files: &[InputFile]) -> Result<Self, DataError> {
        let sizes = super::sizes(files)?;
        let changed = |size: &std::fs::Metadata| {
            let changed = size.modified().ok();
            let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            since.map_or(0, |since| since.as_nanos())
        };
        let inputs = files.iter().zip(&sizes).map(|(file, size)| Input {
            name: file.name.clone(),
            bytes: size.len(),
        });
        Ok(Self {
            tokenizer: preparation.tokenizer.identity(),
            tokenizer_file: preparation.tokenizer.file().map(ToOwned::to_owned),
            vocab_size: preparation.tokenizer.vocab_size(),
            end_of_document: preparation.tokenizer.end_of_document()?,
            validation_fraction: preparation.validation_fraction,
            deduplicate: preparation.deduplicate,
            shard_tokens: preparation.shard_tokens,
            max_document_bytes: preparation.max_document_bytes,
            inputs: inputs.collect(),
            changed: sizes.iter().map(changed).collect(),
        })
    }

    pub(super) fn width(&self) -> Width {
        Width::for_vocab(self.vocab_size)
    }

    /// The first thing in which two differ, and both its values.
    pub(super) fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let listed = |settings: &Self| {
            let inputs = settings.inputs.iter().zip(&settings.changed);
            let line = |(input, changed): (&Input, &u128)| {
                format!("{} ({} bytes, {changed})", input.name, input.bytes)
            };
            inputs.map(line).collect::<Vec<_>>()
        };
        let (mine, theirs) = (listed(self), listed(other));
        let input = mine.iter().zip(&theirs).find(|(a, b)| a != b);
        let input = input.map(|(a, b)| (a.clone(), b.clone()));
        let fields = [
            ("tokenizer", self.tokenizer.clone(), other.tokenizer.clone()),
            (
                "validation fraction",
                self.validation_fraction.to_string(),
                other.validation_fraction.to_string(),
            ),
            (
                "removal of duplicates",
                self.deduplicate.to_string(),
                other.deduplicate.to_string(),
            ),
            (
                "size of shards",
                self.shard_tokens.to_string(),
                other.shard_tokens.to_string(),
            ),
            (
                "limit of documents",
                self.max_document_bytes.to_string(),
                other.max_document_bytes.to_string(),
            ),
            (
                "number of inputs",
                mine.len().to_string(),
                theirs.len().to_string(),
            ),
        ];
        let differs = fields.into_iter().find(|(_, mine, theirs)| mine != theirs);
        differs.or_else(|| input.map(|(mine, theirs)| ("input", mine, theirs)))
    }
}

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            mark: Mark::default(),
            train: Vec::new(),
            validation: Vec::new(),
        }
    }

    pub(super) fn shards(&self, side: Side) -> &Vec<Shard> {
        match side {
            Side::Train => &self.train,
            Side::Validation => &self.validation,
        }
    }

    pub(super) fn shards_mut(&mut self, side: Side) -> &mut Vec<Shard> {
        match side {
            Side::Train => &mut self.train,
            Side::Validation => &mut self.validation,
        }
    }

    /// What is written so far.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for shard in self.train.iter().chain(&self.validation) {
            progress.documents = progress.documents.saturating_add(shard.documents);
            progress.tokens = progress.tokens.saturating_add(shard.tokens);
            progress.text_bytes = progress.text_bytes.saturating_add(shard.bytes);
        }
        progress
    }

    /// Bytes of the files that are done.
    pub(super) fn bytes_before(&self) -> u64 {
        let done = self.settings.inputs.iter().take(self.mark.file);
        done.map(|input| input.bytes).sum()
    }

    /// The index of the finished folder.
    pub(super) fn into_index(self, tokenizer: TokenizerRecord) -> Index {
        Index {
            format: Index::format(),
            tokenizer,
            vocab_size: self.settings.vocab_size,
            width: self.settings.width(),
            end_of_document: self.settings.end_of_document,
            validation_fraction: self.settings.validation_fraction,
            shard_tokens: self.settings.shard_tokens,
            max_document_bytes: self.settings.max_document_bytes,
            duplicates: self.settings.deduplicate.then_some(self.mark.duplicates),
            blank: self.mark.blank,
            inputs: self.settings.inputs,
            train: self.train,
            validation: self.validation,
        }
    }
}
