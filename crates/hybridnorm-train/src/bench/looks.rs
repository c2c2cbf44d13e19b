//! What a look at every layer takes beside a step.

use std::time::Instant;

use burn::tensor::Device;

use super::spread::Spread;
use super::step::finish;
use crate::engine::{LanguageModel, Observed, StepGradients, TrainError};
use crate::recipe::Optimizer;
use crate::run::TrainingConfig;

/// Milliseconds of looks, and of updates of the weights with and without one.
#[derive(Debug, Default)]
pub(super) struct Looks {
    observed: Vec<f64>,
    measured_updates: Vec<f64>,
    plain_updates: Vec<f64>,
}

impl Looks {
    /// The update of step `step`, behind a look and telling how far it moves the weights where `look` says so.
    pub fn update(
        &mut self,
        model: LanguageModel,
        gradients: StepGradients,
        optimizer: &mut Optimizer,
        (lr, max_norm): (f64, f64),
        (step, device, look): (u64, &Device, bool),
    ) -> Result<LanguageModel, TrainError> {
        if look {
            let sequences = TrainingConfig::default().diagnostics_sequences;
            let started = Instant::now();
            // It reads its figures back, and so ends when the device has.
            Observed::new(&model, &gradients, sequences, step)?;
            self.observed.push(milliseconds_since(started));
        }
        let started = Instant::now();
        let (model, updates) = match look {
            true => {
                let (model, movement) =
                    gradients.apply_measured(model, optimizer, lr, max_norm, step);
                movement?;
                (model, &mut self.measured_updates)
            }
            false => {
                let model = gradients.apply(model, optimizer, lr, max_norm);
                (model, &mut self.plain_updates)
            }
        };
        finish(device, step)?;
        updates.push(milliseconds_since(started));
        Ok(model)
    }

    /// What a look takes: itself, and what an update takes more with one; medians. `None` where there was none.
    pub fn milliseconds(&self) -> Option<f64> {
        let median = |values: &[f64]| Spread::of(values).map(|spread| spread.median);
        let more = median(&self.measured_updates)? - median(&self.plain_updates)?;
        Some(median(&self.observed)? + more.max(0.0))
    }
}

fn milliseconds_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_itself_and_what_an_update_takes_more() {
        let mut looks = Looks {
            observed: vec![9.0, 11.0, 10.0],
            measured_updates: vec![5.0],
            plain_updates: vec![3.0, 4.0, 2.0],
        };
        assert_eq!(looks.milliseconds(), Some(12.0));
        // Noise gives no time back.
        looks.measured_updates = vec![1.0];
        assert_eq!(looks.milliseconds(), Some(10.0));
        assert_eq!(Looks::default().milliseconds(), None);
    }
}
