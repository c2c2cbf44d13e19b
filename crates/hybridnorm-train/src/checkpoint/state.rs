//! `state.json`: the numbers of a run at a checkpoint.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::{CheckpointError, Damage};
use super::manifest::FORMAT;
use crate::guard::GuardState;

/// The file's name.
pub(super) const STATE: &str = "state.json";

/// Where a run stood when the checkpoint was written.
///
/// Neither data order nor random numbers appear here: a batch and the noise of its passes are pure functions of the
/// step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingState {
    /// Version of the layout.
    pub format: u32,
    /// Steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Steps the optimiser has taken: the t of its bias corrections.
    pub optimizer_steps: u64,
    /// Seconds of training so far, over all restarts.
    pub elapsed_s: f64,
    /// BLAKE3 hash of the run's configuration.
    pub config_blake3: String,
    /// What the run learns from, as its [`BatchSource`](crate::engine::BatchSource) identifies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The steps that a new one is held against, and those that were refused.
    #[serde(default)]
    pub guard: GuardState,
    /// Version of the program that wrote it.
    pub program: String,
}

impl TrainingState {
    /// Reads `state.json` of the generation in `dir`, which must be that of `step`.
    pub(super) fn read(dir: &Path, step: u64) -> Result<Self, CheckpointError> {
        let path = dir.join(STATE);
        let text = std::fs::read_to_string(&path).map_err(CheckpointError::io("read", &path))?;
        let damaged = |reason: String| CheckpointError::Damaged {
            dir: dir.to_path_buf(),
            damages: vec![Damage::Unreadable {
                file: STATE.to_string(),
                reason,
            }],
        };
        let state: Self =
            serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if state.format != FORMAT {
            let found = state.format;
            return Err(damaged(format!(
                "format {found} where {FORMAT} is understood"
            )));
        }
        if state.step != step {
            let found = state.step;
            return Err(damaged(format!("it is of step {found}, not {step}")));
        }
        Ok(state)
    }
}
