//! How a step is divided: batch = micro-batch · accumulation · devices.

use hybridnorm_core::ConfigError;

use crate::run::TrainingConfig;

/// What was asked for. Any two of the first three give the third.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sizes {
    /// Sequences in a step.
    pub batch: Option<usize>,
    /// Sequences in one forward and backward pass.
    pub micro_batch: Option<usize>,
    /// Micro-batches in a step, on each device.
    pub accumulation: Option<usize>,
    /// At least 1.
    pub devices: usize,
}

impl Sizes {
    /// Puts them over a configuration.
    pub fn overlay(self, training: &mut TrainingConfig) -> Result<(), ConfigError> {
        let devices = self.devices;
        let product = match devices {
            1 => "batch = micro-batch · accumulation".to_string(),
            n => format!("batch = micro-batch · accumulation · {n} devices"),
        };
        let Some(accumulation) = self.accumulation else {
            training.batch = self.batch.unwrap_or(training.batch);
            if !training.batch.is_multiple_of(devices) {
                let allowed = format!("a divisor of the batch of {}: {product}", training.batch);
                return Err(ConfigError::new("devices", devices, allowed));
            }
            training.micro_batch = match self.micro_batch {
                Some(micro_batch) => micro_batch,
                None => largest_divisor(training.batch / devices, training.micro_batch),
            };
            return Ok(());
        };
        let refuse = |allowed: String| Err(ConfigError::new("accumulation", accumulation, allowed));
        let Some(parts) = accumulation.checked_mul(devices) else {
            return refuse("a batch below 2^64".to_string());
        };
        match (self.batch, self.micro_batch) {
            (None, Some(micro_batch)) => {
                training.micro_batch = micro_batch;
                training.batch = match micro_batch.checked_mul(parts) {
                    Some(batch) => batch,
                    None => return refuse("a batch below 2^64".to_string()),
                };
            }
            (batch, micro_batch) => {
                training.batch = batch.unwrap_or(training.batch);
                if parts == 0 || !training.batch.is_multiple_of(parts) {
                    return refuse(format!(
                        "a divisor of the batch of {}: {product}",
                        training.batch
                    ));
                }
                training.micro_batch = training.batch / parts;
                if micro_batch.is_some_and(|given| given != training.micro_batch) {
                    let [batch, micro] = [training.batch, micro_batch.unwrap_or_default()];
                    return refuse(format!("{batch} / {micro}: {product}"));
                }
            }
        }
        Ok(())
    }
}

/// The largest number up to `most` that divides `n`.
fn largest_divisor(n: usize, most: usize) -> usize {
    (1..=most.min(n))
        .rev()
        .find(|divisor| n.is_multiple_of(*divisor))
        .unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batch, micro-batch and accumulation on each of so many devices; the configured batch is 8.
    fn divided(devices: usize, asked: [Option<usize>; 3]) -> Result<[usize; 3], String> {
        let [batch, micro_batch, accumulation] = asked;
        let sizes = Sizes {
            batch,
            micro_batch,
            accumulation,
            devices,
        };
        let mut training = TrainingConfig::default();
        let done = sizes.overlay(&mut training);
        done.map(|()| {
            let each = training.accumulation() / devices;
            [training.batch, training.micro_batch, each]
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_micro_batch_always_divides() {
        for (batch, most, expected) in [(8, 8, 8), (16, 8, 8), (12, 8, 6), (7, 8, 7), (13, 8, 1)] {
            assert_eq!(largest_divisor(batch, most), expected);
        }
    }

    #[test]
    fn any_two_of_batch_micro_batch_and_accumulation_give_the_third() {
        for given in [
            [Some(12), Some(3), None],
            [Some(12), None, Some(4)],
            [None, Some(3), Some(4)],
            [Some(12), Some(3), Some(4)],
        ] {
            assert_eq!(divided(1, given).unwrap(), [12, 3, 4]);
        }
        assert_eq!(divided(1, [None, None, Some(2)]).unwrap(), [8, 4, 2]);
        for (wrong, says) in [
            ([Some(12), Some(4), Some(4)], "12 / 4"),
            ([Some(12), None, Some(5)], "a divisor of the batch of 12"),
            ([None, None, Some(0)], "a divisor of the batch of 8"),
        ] {
            let error = divided(1, wrong).unwrap_err();
            assert!(
                error.contains("accumulation") && error.contains(says),
                "{error}"
            );
        }
    }

    #[test]
    fn devices_share_the_batch() {
        for (given, expected) in [
            ([Some(12), None, None], [12, 4, 1]),
            ([Some(12), None, Some(2)], [12, 2, 2]),
            ([None, Some(2), Some(2)], [12, 2, 2]),
            ([Some(12), Some(2), None], [12, 2, 2]),
        ] {
            assert_eq!(divided(3, given).unwrap(), expected);
        }
        for (wrong, says) in [
            (
                [None; 3],
                "devices = 3 is not allowed: a divisor of the batch of 8",
            ),
            (
                [Some(12), None, Some(3)],
                "batch = micro-batch · accumulation · 3 devices",
            ),
            ([Some(12), Some(4), Some(2)], "12 / 4"),
            ([None, Some(2), Some(usize::MAX)], "below 2^64"),
        ] {
            let error = divided(3, wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
