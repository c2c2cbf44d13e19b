//! The whole of a run in one record: what `config.toml` in a run directory holds.

mod data;
mod evaluation;
mod file;
mod schedule;
mod training;

use hybridnorm_core::{ConfigError, DecoderConfig};
use hybridnorm_moe::{ModelConfig, SparseConfig};
use serde::{Deserialize, Serialize};

pub use data::{DataConfig, SourceConfig};
pub use evaluation::EvaluationConfig;
pub use file::BadConfig;
pub use schedule::ScheduleConfig;
pub(crate) use training::LOOKS;
pub use training::TrainingConfig;

use crate::guard::GuardConfig;
use crate::recipe::{OptimizerConfig, Schedule, ScheduleShape};

/// Everything that decides a run's numbers. Unknown fields are refused; `plan` prints every default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// What it learns from.
    #[serde(default)]
    pub data: DataConfig,
    /// How long, in what batches, how often it reports.
    #[serde(default)]
    pub training: TrainingConfig,
    /// Questions that the model is asked on the way; absent, none.
    #[serde(default, skip_serializing_if = "EvaluationConfig::is_empty")]
    pub evaluation: EvaluationConfig,
    /// What happens to a step that went wrong.
    #[serde(default)]
    pub guard: GuardConfig,
    /// Learning rate over time.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Optimiser and clipping.
    #[serde(default)]
    pub optimizer: OptimizerConfig,
    /// The model.
    pub model: DecoderConfig,
    /// Its sparse feed-forward layers; absent, all are dense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<SparseConfig>,
}

impl RunConfig {
    /// The model with its sparse layers.
    pub fn model_config(&self) -> ModelConfig {
        ModelConfig {
            decoder: self.model.clone(),
            sparse: self.sparse.clone(),
        }
    }

    /// Writes out the defaults of what is in use but was left out.
    pub fn spell_out(&mut self) {
        if let Some(muon) = self.optimizer.muon() {
            self.optimizer.muon = Some(muon);
        }
        if self.schedule.shape == ScheduleShape::Wsd {
            self.schedule.decay.get_or_insert_default();
        }
    }

    /// Refuses what cannot be trained.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.model_config().validate()?;
        let t = &self.training;
        for (field, value) in [
            ("training.steps", t.steps),
            ("training.seq", t.seq as u64),
            ("training.batch", t.batch as u64),
            ("training.micro_batch", t.micro_batch as u64),
            (
                "training.logit_rows",
                t.logit_rows.map_or(1, |rows| rows as u64),
            ),
        ] {
            if value == 0 {
                return Err(ConfigError::new(field, value, "at least 1"));
            }
        }
        if !t.batch.is_multiple_of(t.micro_batch) {
            let allowed = format!("a divisor of training.batch = {}", t.batch);
            let field = "training.micro_batch";
            return Err(ConfigError::new(field, t.micro_batch, allowed));
        }
        const MOST: u64 = 1 << 31;
        if t.seq as u64 > MOST {
            return Err(ConfigError::new("training.seq", t.seq, "at most 2^31"));
        }
        let tokens = (t.batch as u64).checked_mul(t.seq as u64);
        let Some(tokens) = tokens.filter(|tokens| *tokens <= MOST) else {
            let allowed = format!(
                "at most 2^31 tokens in a step, {} sequences here",
                MOST / t.seq as u64
            );
            return Err(ConfigError::new("training.batch", t.batch, allowed));
        };
        if tokens.checked_mul(t.steps).is_none() {
            let allowed = "batch · seq · steps below 2^64 tokens";
            return Err(ConfigError::new("training.steps", t.steps, allowed));
        }
        if t.seq > self.model.max_seq_len {
            let allowed = format!("at most model.max_seq_len = {}", self.model.max_seq_len);
            return Err(ConfigError::new("training.seq", t.seq, allowed));
        }
        for (field, value) in [
            ("training.eval_sequences", t.eval_sequences),
            ("training.diagnostics_sequences", t.diagnostics_sequences),
        ] {
            if value == 0 {
                return Err(ConfigError::new(field, value, "at least 1"));
            }
        }
        self.data.validate()?;
        self.evaluation.validate()?;
        self.guard.validate()?;
        let total = t.steps * t.tokens_per_step();
        if let Some(warmup) = self.schedule.warmup_tokens
            && warmup > total
        {
            let allowed = format!("at most the {total} tokens of the run");
            return Err(ConfigError::new("schedule.warmup_tokens", warmup, allowed));
        }
        if self.schedule.shape == ScheduleShape::InverseSqrt
            && self.schedule.warmup_tokens == Some(0)
        {
            let allowed = "at least 1 with the inverse-sqrt shape, which is scaled by it";
            return Err(ConfigError::new("schedule.warmup_tokens", 0, allowed));
        }
        for (field, value, most) in [
            ("schedule.lr", self.schedule.lr, f64::MAX),
            ("schedule.floor", self.schedule.floor, 1.0),
            ("schedule.warmup_from", self.schedule.warmup_from, f64::MAX),
        ] {
            if !(0.0..=most).contains(&value) {
                let allowed = match most {
                    f64::MAX => "a finite number of at least 0".to_string(),
                    _ => "from 0 to 1".to_string(),
                };
                return Err(ConfigError::new(field, value, allowed));
            }
        }
        self.schedule.validate_decay(total)?;
        self.optimizer.validate(total)
    }

    /// The schedule in tokens, over the whole run.
    pub fn schedule(&self) -> Schedule {
        let total = self.training.steps * self.training.tokens_per_step();
        let ScheduleConfig {
            shape,
            lr,
            floor,
            warmup_tokens,
            warmup_from,
            decay,
        } = self.schedule;
        Schedule {
            shape,
            peak: lr,
            floor,
            warmup_from,
            warmup: warmup_tokens.unwrap_or(total / 20),
            total,
            decay: decay.unwrap_or_default(),
        }
    }
}
