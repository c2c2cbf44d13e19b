//! What is about to be measured, for people.

use core::fmt;

use super::step::StepBench;
use crate::engine::Recompute;
use crate::sizes::{Experts, Parameters};

impl StepBench {
    /// How a step is divided, where it is.
    fn division(&self) -> String {
        let mut text = String::new();
        if self.micro_batch < self.batch {
            let parts = self.batch / self.micro_batch;
            text += &format!(" in {parts} micro-batches of {}", self.micro_batch);
        }
        if self.stages.recompute == Recompute::Block {
            text += ", blocks computed twice";
        }
        if let Some(rows) = self.stages.logit_rows {
            text += &format!(", {rows} rows of logits at once");
        }
        text
    }
}

impl fmt::Display for StepBench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = &self.model.decoder;
        let parameters = Parameters::of(&self.model).map_err(|_| fmt::Error)?;
        let millions = |parameters: usize| format!("{:.2} million", parameters as f64 / 1e6);
        let experts = Experts::of(&self.model);
        writeln!(
            f,
            "model     {}, {} parameters{}: {} layers, width {}, {}{} heads of {} on {} key/value heads",
            self.preset.unwrap_or("from flags"),
            millions(parameters.total),
            match experts {
                Some(_) => format!(", {} of them active", millions(parameters.active)),
                None => String::new(),
            },
            model.n_layers,
            model.d_model,
            match experts {
                Some(experts) if experts.everywhere() => String::new(),
                _ => format!("feed-forward {}, ", model.d_ff),
            },
            model.n_heads,
            model.head_dim(),
            model.n_kv_heads,
        )?;
        if let Some(experts) = experts {
            writeln!(f, "experts   {experts}")?;
        }
        writeln!(
            f,
            "          vocabulary of {} rows, head {}; placement {}",
            model.padded_vocab_size,
            if model.tied { "tied" } else { "untied" },
            model.placement,
        )?;
        writeln!(
            f,
            "step      {} sequences x {} = {} random tokens{}; {}; {} steps timed after {} of warm-up",
            self.batch,
            self.seq,
            self.tokens_per_step(),
            self.division(),
            match self.forward_only {
                true => "forward pass only".to_string(),
                false => self.optimizer.to_string(),
            },
            self.steps,
            self.warmup,
        )
    }
}
