//! What the model is asked during training.

use std::path::PathBuf;

use hybridnorm_core::ConfigError;
use serde::{Deserialize, Serialize};

use crate::amount::Amount;

/// Multiple-choice questions that the model is asked during training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Files of them: this program's own `.jsonl`, or OLMo's `requests.jsonl.gz` (docs/evaluation.md).
    pub tasks: Vec<PathBuf>,
    /// Between two askings; 0 asks at the end only.
    pub every: Amount,
    /// Questions of each task at most, drawn by `training.seed`; absent, all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub questions: Option<usize>,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            tasks: Vec::new(),
            every: Amount::Steps(0),
            questions: None,
        }
    }
}

impl EvaluationConfig {
    /// Whether nothing is said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what asks nothing.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.questions == Some(0) {
            let allowed = "at least 1; left out, all are asked";
            return Err(ConfigError::new("evaluation.questions", 0, allowed));
        }
        if self.tasks.is_empty() && !self.is_empty() {
            let allowed = "at least one file, without which the other fields do nothing";
            return Err(ConfigError::new("evaluation.tasks", "[]", allowed));
        }
        Ok(())
    }
}
