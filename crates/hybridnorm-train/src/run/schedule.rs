//! Learning rate over time.

use hybridnorm_core::ConfigError;
use serde::{Deserialize, Serialize};

use crate::recipe::{Decay, ScheduleShape};

/// Learning rate over time, in tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleConfig {
    /// How it falls after the warm-up.
    pub shape: ScheduleShape,
    /// Highest learning rate.
    pub lr: f64,
    /// Lowest learning rate, as a share of the highest.
    pub floor: f64,
    /// Tokens of linear warm-up; absent, 5 % of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_tokens: Option<u64>,
    /// Learning rate at the very start of the warm-up.
    pub warmup_from: f64,
    /// The last part of a `wsd` schedule; its defaults where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<Decay>,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            shape: ScheduleShape::Cosine,
            lr: 3e-4,
            floor: 0.1,
            warmup_tokens: None,
            warmup_from: 0.0,
            decay: None,
        }
    }
}

impl ScheduleConfig {
    /// Takes another shape. The decay goes with `wsd`.
    pub fn reshape(&mut self, shape: ScheduleShape) {
        self.shape = shape;
        if shape != ScheduleShape::Wsd {
            self.decay = None;
        }
    }

    /// Refuses a decay that does nothing, or that meets the warm-up, in a run of `total` tokens.
    pub(super) fn validate_decay(&self, total: u64) -> Result<(), ConfigError> {
        if self.shape != ScheduleShape::Wsd {
            let allowed = "only with schedule.shape = \"wsd\", without which it does nothing";
            return match self.decay {
                Some(_) => Err(ConfigError::new("schedule.decay", "a table", allowed)),
                None => Ok(()),
            };
        }
        let fraction = self.decay.unwrap_or_default().fraction;
        let warmup = self.warmup_tokens.unwrap_or(total / 20) as f64 / total as f64;
        if fraction > 0.0 && fraction + warmup <= 1.0 {
            return Ok(());
        }
        let allowed = format!(
            "above 0 and up to {}, the share of the run after its warm-up",
            1.0 - warmup
        );
        Err(ConfigError::new(
            "schedule.decay.fraction",
            fraction,
            allowed,
        ))
    }
}
