//! How a run of a comparison ended: `outcome.json` in its directory.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::engine::TrainError;
use crate::error::Error;
use crate::json;

/// The outcome's file name in a run directory.
pub const OUTCOME: &str = "outcome.json";
/// The training loss at the end of a run is the mean of this last part of its steps.
const TAIL: usize = 10;
/// A run whose training loss ends this many nats per token above an earlier tenth of it has diverged.
const RISE: f64 = 0.5;

/// Whether a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It took all its steps.
    Finished,
    /// It did not: see [`divergence`].
    Diverged,
}

impl core::fmt::Display for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Finished => "finished",
            Self::Diverged => "diverged",
        })
    }
}

/// How a run ended. It stands in the run's directory as `outcome.json`, and a run that has one is not run again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether it came to its end.
    pub state: State,
    /// Why it did not; or of one that did, what is to be said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Steps done.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Nats per token of held-out text, at the end; absent where no figure was finite.
    pub validation_loss: Option<f64>,
    /// The same in bits per byte.
    pub bits_per_byte: Option<f64>,
    /// Mean training loss of the last tenth of the steps, in nats per token.
    pub training_loss: Option<f64>,
    /// The median step's tokens per second, which depend on what else the machine did.
    pub tokens_per_s: Option<f64>,
    /// Seconds of training, over all restarts.
    pub elapsed_s: Option<f64>,
    /// What it was trained on.
    pub data: Option<String>,
    /// On which device.
    pub device: String,
    /// By which version of this program.
    pub program: String,
}

impl Outcome {
    /// The one in the run directory `dir`, if there is one.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(dir: &Path) -> Result<Option<Self>, Error> {
        let path = dir.join(OUTCOME);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io("read", &path))?,
        };
        let found = serde_json::from_str(&text).map_err(|error| Error::ConfigFile {
            path,
            line: Some(error.line()),
            reason: error.to_string(),
        })?;
        Ok(Some(found))
    }

    /// Writes it into the run directory `dir`, whole or not at all.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        json::save(self, &dir.join(OUTCOME))
    }
}

/// Why a run that took all its steps has diverged all the same; `losses` are its training losses in order.
///
/// A run has diverged when
///
/// - a loss or gradient was not finite (the engine then ends it: see [`ended_by`]), or
/// - the mean training loss of its last tenth is not below the loss it began with, or
/// - it lies more than 0.5 nats per token above that of an earlier tenth.
pub fn divergence(losses: &[f64]) -> Option<String> {
    let tenths: Vec<f64> = losses
        .chunks(losses.len().div_ceil(TAIL).max(1))
        .filter_map(mean)
        .collect();
    let (last, before) = tenths.split_last()?;
    let (first, lowest) = (*losses.first()?, least(before));
    if *last >= first && losses.len() > 1 {
        return Some(format!(
            "training loss ends at {last:.3} nats per token, no better than the {first:.3} it began with"
        ));
    }
    (last - lowest > RISE).then(|| {
        format!("training loss rose again, from {lowest:.3} nats per token to {last:.3} at the end")
    })
}

/// What is to be said of a run that came to its end at `bits_per_byte` of held-out text, where the frequency of single bytes gives `unigram`.
pub fn stuck(bits_per_byte: f64, unigram: f64) -> Option<String> {
    (bits_per_byte >= unigram).then(|| {
        format!(
            "{bits_per_byte:.3} bits per byte, where the frequency of single bytes gives {unigram:.3}"
        )
    })
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The sentence about a run that the engine ended because it diverged; `None` for every other error.
pub fn ended_by(error: &TrainError) -> Option<String> {
    match error {
        TrainError::NonFinite { .. }
        | TrainError::Spike { .. }
        | TrainError::OutOfPatience { .. }
        | TrainError::Routing { .. } => Some(error.to_string()),
        _ => None,
    }
}

/// The mean of the last tenth.
pub(crate) fn tail(losses: &[f64]) -> Option<f64> {
    let last = losses.len().div_ceil(TAIL);
    mean(losses.get(losses.len().saturating_sub(last)..)?)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_is_no_divergence() {
        let falling: Vec<f64> = (0..100).map(|step| 6.0 - 0.04 * f64::from(step)).collect();
        assert_eq!(divergence(&falling), None);
        assert!((tail(&falling).unwrap() - (6.0 - 0.04 * 94.5)).abs() < 1e-12);
    }

    #[test]
    fn a_loss_that_comes_back_up_is() {
        let mut losses = vec![2.0; 100];
        losses[0] = 6.0;
        losses[90..].fill(2.4);
        assert_eq!(divergence(&losses), None);
        losses[90..].fill(2.6);
        let reason = divergence(&losses).unwrap();
        assert!(
            reason.contains("2.000") && reason.contains("2.600"),
            "{reason}"
        );
    }

    #[test]
    fn so_is_one_that_never_went_down() {
        assert!(divergence(&[5.0; 20]).unwrap().contains("5.000"));
    }

    #[test]
    fn runs_of_few_steps_are_judged_too() {
        assert_eq!(divergence(&[]), None);
        assert_eq!(divergence(&[9.0]), None);
        assert!(divergence(&[1.0, 9.0]).is_some());
        assert_eq!(tail(&[]), None);
        assert_eq!(tail(&[1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn having_learnt_nothing_is_said() {
        assert!(stuck(4.7, 4.7).is_some());
        assert_eq!(stuck(4.6, 4.7), None);
    }
}
