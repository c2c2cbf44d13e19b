//! How long a run is, in what batches, how often it reports.

use serde::{Deserialize, Serialize};

use crate::amount::Amount;
use crate::engine::{Precision, Recompute, Stages};

/// The part of a run's time that looks at its layers may take without a word about it.
pub(crate) const LOOKS: f64 = 0.02;

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

    /// Sequences of a step that looks at its layers pass through the model once more.
    pub fn looked_at(&self) -> usize {
        self.diagnostics_sequences.min(self.micro_batch)
    }

    /// About the part of the run's time that looks at its layers take: one costs about what training on its sequences does
    /// (`docs/probe.md` measures it).
    pub fn diagnostics_share(&self) -> f64 {
        let every = self.diagnostics_every.in_steps(self.tokens_per_step());
        let looks = match every {
            0 => 0,
            1 => self.steps,
            _ => 1 + self.steps / every,
        };
        looks as f64 * self.looked_at() as f64 / (self.steps as f64 * self.batch as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_cost_what_their_sequences_do() {
        let share = |every: Amount, steps: u64, batch: usize| {
            let training = TrainingConfig {
                diagnostics_every: every,
                steps,
                batch,
                micro_batch: 1,
                ..TrainingConfig::default()
            };
            training.diagnostics_share()
        };
        // One sequence, a micro-batch, of eight in a step.
        assert_eq!(share(Amount::Steps(0), 500, 8), 0.0);
        assert_eq!(share(Amount::Steps(1), 500, 8), 1.0 / 8.0);
        assert_eq!(share(Amount::Steps(20), 100, 8), 6.0 / 800.0);
        // The first step is always looked at.
        assert_eq!(share(Amount::Steps(20), 10, 8), 1.0 / 80.0);
        assert_eq!(share(Amount::Tokens(20 * 8 * 256), 100, 8), 6.0 / 800.0);
    }
}
