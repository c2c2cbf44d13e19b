//! Whether a run fits, and what would make it fit.

use hybridnorm_core::{ConfigError, logit_rows};
use thiserror::Error;

use super::Workload;
use super::report::in_words;
use crate::engine::Recompute;

/// A run that needs more memory than there is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "this run needs about {} and {device} has {}: {advice}; --ignore-memory starts it all the same",
    in_words(*needed),
    in_words(*available)
)]
pub struct TooLarge {
    /// Bytes that the run is predicted to take.
    pub needed: u64,
    /// Bytes that there are.
    pub available: u64,
    /// On which device.
    pub device: String,
    /// What to do.
    pub advice: String,
}

/// The settings that change what a run takes and not what it computes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Knobs {
    micro_batch: usize,
    recompute: Recompute,
    logit_rows: Option<usize>,
}

impl Workload {
    /// Why the `available` bytes of `device` do not hold the run, with the settings that would make it fit, or the largest part of what
    /// is left with all of them; `None` where it fits.
    ///
    /// # Errors
    /// When the model's configuration is not allowed.
    pub fn too_large(&self, available: u64, device: &str) -> Result<Option<TooLarge>, ConfigError> {
        let needed = self.memory()?.total();
        if needed <= available {
            return Ok(None);
        }
        Ok(Some(TooLarge {
            needed,
            available,
            device: device.to_string(),
            advice: self.advice(available)?,
        }))
    }

    fn advice(&self, available: u64) -> Result<String, ConfigError> {
        let now = self.knobs();
        let recomputed = Knobs {
            recompute: Recompute::Block,
            ..now
        };
        // One setting alone; where none is enough, two of them; then all.
        let mut found = Vec::new();
        let alone = match now.recompute {
            Recompute::None => vec![recomputed],
            Recompute::Block => Vec::new(),
        };
        for choices in [alone, self.smaller(now), self.sliced(now)] {
            found.extend(self.first_that_fits(choices, available)?);
        }
        if found.is_empty() && now != recomputed {
            for choices in [self.smaller(recomputed), self.sliced(recomputed)] {
                found.extend(self.first_that_fits(choices, available)?);
            }
        }
        if found.is_empty() {
            let least = Knobs {
                micro_batch: 1,
                ..recomputed
            };
            found.extend(self.first_that_fits(self.sliced(least), available)?);
        }
        match found.is_empty() {
            true => self.hopeless(available),
            false => Ok(found.join(", ")),
        }
    }

    /// `from` with smaller micro-batches of the same step, the largest first.
    fn smaller(&self, from: Knobs) -> Vec<Knobs> {
        let sequences = self.micro_batch * self.accumulation;
        (1..self.micro_batch)
            .rev()
            .filter(|micro_batch| sequences.is_multiple_of(*micro_batch))
            .map(|micro_batch| Knobs {
                micro_batch,
                ..from
            })
            .collect()
    }

    /// `from` with fewer rows of logits, powers of two, the largest first.
    fn sliced(&self, from: Knobs) -> Vec<Knobs> {
        let tokens = from.micro_batch.saturating_mul(self.seq);
        let vocab = self.model.decoder.padded_vocab_size;
        let rows = logit_rows(self.stages.logit_rows, tokens, vocab);
        (0..rows.ilog2() + 1)
            .rev()
            .map(|power| 1 << power)
            .filter(|fewer| *fewer < rows)
            .map(|fewer| Knobs {
                logit_rows: Some(fewer),
                ..from
            })
            .collect()
    }

    /// Why nothing helps: the model itself, or what is largest with the settings that need least.
    fn hopeless(&self, available: u64) -> Result<String, ConfigError> {
        let now = self.knobs();
        let sliced = Knobs {
            recompute: Recompute::Block,
            logit_rows: Some(1),
            ..now
        };
        // Where nothing is accumulated yet, smaller micro-batches cost the sum of their gradients.
        let divided = Knobs {
            micro_batch: 1,
            ..sliced
        };
        let (mut least, mut memory) = (now, self.memory()?);
        for knobs in [sliced, divided] {
            let found = self.with(knobs).memory()?;
            if found.total() < memory.total() {
                (least, memory) = (knobs, found);
            }
        }
        let model = memory.weights + memory.gradients + memory.optimizer;
        if model > available {
            let model = in_words(model);
            return Ok(format!(
                "weights, gradients and optimiser state alone are {model}, so a smaller model or a device with more memory is needed"
            ));
        }
        let largest = memory
            .components()
            .into_iter()
            .max_by_key(|(_, bytes)| *bytes);
        let (name, bytes) = largest.unwrap_or(("process", 0));
        let bytes = in_words(bytes);
        Ok(match least == now {
            true => format!("nothing would need less, and the largest part is {bytes} for {name}"),
            false => format!(
                "{} would still need {}, of which the largest part is {bytes} for {name}",
                self.flags(least),
                in_words(memory.total()),
            ),
        })
    }

    fn first_that_fits(
        &self,
        choices: Vec<Knobs>,
        available: u64,
    ) -> Result<Option<String>, ConfigError> {
        for knobs in choices {
            let total = self.with(knobs).memory()?.total();
            if total <= available {
                let flags = self.flags(knobs);
                return Ok(Some(format!("`{flags}` would fit ({})", in_words(total))));
            }
        }
        Ok(None)
    }

    fn knobs(&self) -> Knobs {
        Knobs {
            micro_batch: self.micro_batch,
            recompute: self.stages.recompute,
            logit_rows: self.stages.logit_rows,
        }
    }

    fn with(&self, knobs: Knobs) -> Self {
        let mut changed = self.clone();
        let sequences = self.micro_batch * self.accumulation;
        changed.micro_batch = knobs.micro_batch;
        changed.accumulation = sequences / knobs.micro_batch;
        changed.stages.recompute = knobs.recompute;
        changed.stages.logit_rows = knobs.logit_rows;
        changed
    }

    /// The flags that change.
    fn flags(&self, knobs: Knobs) -> String {
        let now = self.knobs();
        let mut flags = Vec::new();
        if knobs.micro_batch != now.micro_batch {
            flags.push(format!("--micro-batch {}", knobs.micro_batch));
        }
        if knobs.recompute != now.recompute {
            flags.push("--recompute block".to_string());
        }
        if let Some(rows) = knobs
            .logit_rows
            .filter(|_| knobs.logit_rows != now.logit_rows)
        {
            flags.push(format!("--logit-rows {rows}"));
        }
        flags.join(" ")
    }
}
