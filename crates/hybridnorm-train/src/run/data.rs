//! What a run learns from.

use std::path::PathBuf;

use hybridnorm_core::ConfigError;
use serde::{Deserialize, Serialize};

use crate::data::{VALIDATION_FRACTION, Width};

/// What a run learns from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// Text (a file, a folder or a pattern of `.txt`, `.md`, `.jsonl` or `.parquet`) or a folder that `prepare` made;
    /// absent, the source text of the crates pinned in `Cargo.lock`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// `byte`, or the path of a Hugging Face `tokenizer.json`. Prepared folders bring theirs.
    pub tokenizer: String,
    /// Share of the documents, by hash, that is held out for validation. Prepared folders have theirs.
    pub validation_fraction: f64,
    /// Tokens attend to their own document only, in training and in evaluation.
    pub document_mask: bool,
    /// The labels of sequences that repeat themselves count for nothing (OLMo's `instance_filter`).
    pub repetition_filter: bool,
    /// Several sources by weight, in place of `path`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceConfig>,
}

/// One source of a mixture: a folder that `prepare` made, or files of bare token ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The folder; a file or a pattern where `width` is given.
    pub path: PathBuf,
    /// Its share of the sequences, beside those of the others. Nothing is learnt from a source of weight 0, but the model
    /// is scored on what it holds out.
    #[serde(default = "one")]
    pub weight: f64,
    /// `u16` or `u32`: the files hold bare little-endian ids, as OLMo publishes them (`.npy` by name).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<Width>,
    /// The id after every document of such files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_of_document: Option<u32>,
}

fn one() -> f64 {
    1.0
}

impl DataConfig {
    /// Refuses what contradicts itself.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let fraction = self.validation_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            let allowed = "above 0 and below 1";
            return Err(ConfigError::new(
                "data.validation_fraction",
                fraction,
                allowed,
            ));
        }
        if let (Some(path), false) = (&self.path, self.sources.is_empty()) {
            let allowed = "absent where there are data.sources";
            return Err(ConfigError::new("data.path", path.display(), allowed));
        }
        for source in &self.sources {
            if !(source.weight >= 0.0 && source.weight.is_finite()) {
                let allowed = "a finite number of at least 0";
                return Err(ConfigError::new(
                    "data.sources.weight",
                    source.weight,
                    allowed,
                ));
            }
            if source.width.is_some() != source.end_of_document.is_some() {
                let path = source.path.display();
                let allowed = "`width` and `end_of_document` together for bare token ids, neither for a prepared folder";
                return Err(ConfigError::new("data.sources", path, allowed));
            }
        }
        if !self.sources.is_empty() && self.sources.iter().all(|source| source.weight == 0.0) {
            return Err(ConfigError::new(
                "data.sources.weight",
                0,
                "above 0 for at least one source",
            ));
        }
        Ok(())
    }
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            path: None,
            tokenizer: "byte".to_string(),
            validation_fraction: VALIDATION_FRACTION,
            document_mask: false,
            repetition_filter: false,
            sources: Vec::new(),
        }
    }
}
