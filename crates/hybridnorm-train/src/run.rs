//! The whole of a run in one record: what `config.toml` in a run directory holds.

use std::path::PathBuf;

use hybridnorm_core::{ConfigError, DecoderConfig};
use hybridnorm_moe::{ModelConfig, SparseConfig};
use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::data::{VALIDATION_FRACTION, Width};
use crate::engine::{Precision, Recompute, Stages};
use crate::guard::GuardConfig;
use crate::recipe::{Decay, OptimizerConfig, Schedule, ScheduleShape};

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

/// How long a run is, in what batches, how often it reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Optimiser steps.
    pub steps: u64,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Sequences in an optimiser step (the global batch).
    pub batch: usize,
    /// Sequences in one forward and backward pass; divides `batch`, the quotient is accumulated and averaged.
    pub micro_batch: usize,
    /// What matrices are multiplied in: `f32` or `bf16`. All else is f32 either way: parameters, optimiser state, norms, softmax, routers,
    /// losses, evaluations.
    pub precision: Precision,
    /// Which activations are computed a second time instead of being kept: `none`, or `block` for less memory and one more forward pass.
    pub recompute: Recompute,
    /// Rows of logits that exist at once; absent, as many as make 16 MiB, or 512 where that is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logit_rows: Option<usize>,
    /// Seed of the data order. The initialisation has its own, in `model.init.seed`.
    pub seed: u64,
    /// Between two evaluations on the validation split; 0 evaluates at the end only.
    pub eval_every: Amount,
    /// Sequences in an evaluation during training; the one at the end sees up to four times as many.
    pub eval_sequences: usize,
    /// Between two checkpoints; 0 writes one at the end only.
    pub checkpoint_every: Amount,
    /// Checkpoints kept, the newest; 0 keeps all.
    pub keep_checkpoints: usize,
    /// The checkpoint with the best evaluation is kept beside them.
    pub keep_best: bool,
    /// Of these, one is kept for good beside them; 0 for none.
    pub keep_every: Amount,
    /// Between two steps whose update ratios are logged; 0 for none.
    pub update_ratio_every: Amount,
    /// Between two steps whose layers are looked at, beside the first; 0 for none.
    pub diagnostics_every: Amount,
    /// Sequences of such a step that are passed through the model once more for what only the forward pass can tell.
    pub diagnostics_sequences: usize,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            steps: 500,
            seq: 256,
            batch: 8,
            micro_batch: 8,
            precision: Precision::F32,
            recompute: Recompute::None,
            logit_rows: None,
            seed: 6198,
            eval_every: Amount::Steps(100),
            eval_sequences: 64,
            checkpoint_every: Amount::Steps(100),
            keep_checkpoints: 3,
            keep_best: true,
            keep_every: Amount::Steps(0),
            update_ratio_every: Amount::Steps(20),
            diagnostics_every: Amount::Steps(0),
            diagnostics_sequences: 2,
        }
    }
}

impl TrainingConfig {
    /// Tokens in an optimiser step.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch * self.seq) as u64
    }

    /// How a forward and backward pass is divided.
    pub fn stages(&self) -> Stages {
        Stages {
            recompute: self.recompute,
            logit_rows: self.logit_rows,
            precision: self.precision,
        }
    }

    /// Micro-batches in an optimiser step.
    pub fn accumulation(&self) -> usize {
        self.batch / self.micro_batch
    }
}

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
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what asks nothing.
    fn validate(&self) -> Result<(), ConfigError> {
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
    fn validate_decay(&self, total: u64) -> Result<(), ConfigError> {
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
        let tokens = (t.batch as u64).checked_mul(t.seq as u64);
        if tokens
            .and_then(|tokens| tokens.checked_mul(t.steps))
            .is_none()
        {
            let allowed = "batch · seq · steps below 2^64 tokens";
            return Err(ConfigError::new("training.steps", t.steps, allowed));
        }
        const MOST: u64 = 1 << 31;
        if tokens.is_none_or(|tokens| tokens > MOST) {
            let allowed = format!(
                "at most 2^31 tokens in a step, {} sequences here",
                MOST / t.seq as u64
            );
            return Err(ConfigError::new("training.batch", t.batch, allowed));
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
