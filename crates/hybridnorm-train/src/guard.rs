//! Guards: what a step must look like for its gradient to reach the weights, and what happens when it does not.
//!
//! A step whose loss or gradient norm is not finite, or lies more than [`GuardConfig::sigmas`] standard deviations above the mean of
//! the last [`GuardConfig::window`] good steps, went wrong. The window and the bound are those of OLMo-core's `SkipStepOptimizer`
//! (rolling interval 128, sigma factor 6, nothing judged until half the window is there).

use std::collections::VecDeque;

use hybridnorm_core::{ConfigError, unknown_name};
use serde::{Deserialize, Serialize};

/// What happens to a step that went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// After a loss or gradient norm that is NaN or infinite: `stop`, `skip` or `rollback`.
    pub non_finite: Action,
    /// After a spike.
    pub spike: Action,
    /// Good steps that a new one is held against.
    pub window: usize,
    /// Standard deviations above their mean at which a loss or a gradient norm is a spike.
    pub sigmas: f64,
    /// Steps that may be refused in the length of a window before the run stops: what many batches have in common is no bad batch.
    pub patience: usize,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            non_finite: Action::Stop,
            spike: Action::Warn,
            window: 128,
            sigmas: 6.0,
            patience: 16,
        }
    }
}

/// What follows a step that went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is told, and trained on all the same.
    Warn,
    /// Its gradient is dropped: weights and optimiser stay as they were, the run goes on with the next batch.
    Skip,
    /// Weights and optimiser go back to the newest checkpoint, and the run passes over the batch when it comes to it again.
    Rollback,
    /// The run ends; it can be resumed from its newest checkpoint.
    Stop,
}

impl Action {
    /// Every action by name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("warn", Self::Warn),
        ("skip", Self::Skip),
        ("rollback", Self::Rollback),
        ("stop", Self::Stop),
    ];
}

impl core::fmt::Display for Action {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = Self::ALL.iter().find(|(_, action)| action == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl core::str::FromStr for Action {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, action)| *action)
            .ok_or_else(|| unknown_name("guard", name, Self::ALL.iter().map(|(name, _)| *name)))
    }
}

impl GuardConfig {
    /// Refuses what cannot be guarded by.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.non_finite == Action::Warn {
            let allowed = "skip, rollback or stop: such a step can't be trained on";
            return Err(ConfigError::new("guard.non_finite", "warn", allowed));
        }
        if self.window < 2 {
            return Err(ConfigError::new("guard.window", self.window, "at least 2"));
        }
        if !(self.sigmas > 0.0 && self.sigmas.is_finite()) {
            let allowed = "a finite number above 0";
            return Err(ConfigError::new("guard.sigmas", self.sigmas, allowed));
        }
        Ok(())
    }
}

/// A figure far above those before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spike {
    /// `loss` or `gradient norm`.
    pub what: &'static str,
    /// Its value.
    pub value: f64,
    /// What it had to stay below.
    pub limit: f64,
}

/// The good steps before the one to be judged, and those that were refused: part of a run's state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardState {
    /// Losses of the last good steps, oldest first.
    #[serde(with = "exact")]
    losses: VecDeque<f64>,
    /// Their gradient norms.
    #[serde(with = "exact")]
    norms: VecDeque<f64>,
    /// Steps whose batches were not trained on, oldest first.
    refused: Vec<u64>,
}

impl GuardState {
    /// Holds the loss and the gradient norm of a step, both finite, against the window.
    pub fn judge(&self, config: &GuardConfig, loss: f64, norm: f64) -> Option<Spike> {
        let figures = [
            ("loss", &self.losses, loss),
            ("gradient norm", &self.norms, norm),
        ];
        figures.into_iter().find_map(|(what, window, value)| {
            if window.len() < (config.window / 2).max(2) {
                return None;
            }
            let count = window.len() as f64;
            let mean = window.iter().sum::<f64>() / count;
            let squares: f64 = window.iter().map(|value| (value - mean).powi(2)).sum();
            let limit = mean + config.sigmas * (squares / (count - 1.0)).sqrt();
            (value > limit).then_some(Spike { what, value, limit })
        })
    }

    /// Adds a step that was trained on.
    pub fn accept(&mut self, config: &GuardConfig, loss: f64, norm: f64) {
        for (window, value) in [(&mut self.losses, loss), (&mut self.norms, norm)] {
            window.push_back(value);
            while window.len() > config.window {
                window.pop_front();
            }
        }
    }

    /// Adds a step that is not to be trained on.
    pub fn refuse(&mut self, step: u64) {
        if let Err(place) = self.refused.binary_search(&step) {
            self.refused.insert(place, step);
        }
    }

    /// Whether `step` is not to be trained on.
    pub fn has_refused(&self, step: u64) -> bool {
        self.refused.binary_search(&step).is_ok()
    }

    /// Steps that were refused in all.
    pub fn refused(&self) -> &[u64] {
        &self.refused
    }

    /// Whether one more refusal, of `step`, is more than the patience of `config` allows.
    pub fn is_out_of_patience(&self, config: &GuardConfig, step: u64) -> bool {
        let since = step.saturating_sub(config.window as u64);
        let recent = self
            .refused
            .iter()
            .filter(|refused| (since..step).contains(refused));
        recent.count() >= config.patience
    }
}

/// Numbers as text, which comes back to the last bit; as JSON's own numbers they would not: see [`json`](crate::json).
mod exact {
    use std::collections::VecDeque;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        values: &VecDeque<f64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = values.iter().map(f64::to_string).collect();
        texts.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<VecDeque<f64>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts
            .iter()
            .map(|text| text.parse().map_err(de::Error::custom))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::MISREAD;

    fn after(config: &GuardConfig, losses: &[f64]) -> GuardState {
        let mut state = GuardState::default();
        losses
            .iter()
            .for_each(|loss| state.accept(config, *loss, 1.0));
        state
    }

    #[test]
    fn a_spike_lies_beyond_the_deviations_asked_for() {
        let config = GuardConfig {
            window: 8,
            sigmas: 3.0,
            ..GuardConfig::default()
        };
        // Mean 2, standard deviation √(8/7).
        let state = after(&config, &[1.0, 3.0, 1.0, 3.0, 1.0, 3.0, 1.0, 3.0]);
        let limit = 2.0 + 3.0 * (8.0f64 / 7.0).sqrt();
        assert_eq!(state.judge(&config, limit - 1e-9, 1.0), None);
        let spike = state.judge(&config, limit + 1e-9, 1.0).unwrap();
        assert_eq!(spike.what, "loss");
        assert!((spike.limit - limit).abs() < 1e-12);
        // Norms have all been 1.
        assert_eq!(
            state.judge(&config, 2.0, 1.1).unwrap().what,
            "gradient norm"
        );
        // Lower is never wrong.
        assert_eq!(state.judge(&config, -100.0, 0.0), None);
    }

    #[test]
    fn nothing_is_judged_before_half_a_window() {
        let config = GuardConfig {
            window: 8,
            ..GuardConfig::default()
        };
        assert_eq!(
            after(&config, &[1.0, 1.1, 0.9]).judge(&config, 1e9, 1.0),
            None
        );
        assert!(
            after(&config, &[1.0, 1.1, 0.9, 1.0])
                .judge(&config, 1e9, 1.0)
                .is_some()
        );
    }

    #[test]
    fn the_window_forgets() {
        let config = GuardConfig {
            window: 4,
            ..GuardConfig::default()
        };
        let state = after(&config, &[1e9, 1.0, 1.1, 0.9, 1.0]);
        assert_eq!(state.losses, [1.0, 1.1, 0.9, 1.0]);
    }

    #[test]
    fn patience_is_counted_over_a_window() {
        let config = GuardConfig {
            window: 10,
            patience: 2,
            ..GuardConfig::default()
        };
        let mut state = GuardState::default();
        [5, 3, 5].into_iter().for_each(|step| state.refuse(step));
        assert_eq!(state.refused(), [3, 5]);
        assert!(state.is_out_of_patience(&config, 6));
        assert!(state.is_out_of_patience(&config, 13));
        assert!(!state.is_out_of_patience(&config, 14));
        assert!(state.has_refused(3) && !state.has_refused(4));
    }

    #[test]
    fn the_state_comes_back_to_the_last_bit() {
        let config = GuardConfig::default();
        let plain = [
            0.1 + 0.2,
            f64::MIN_POSITIVE,
            1.0 / 3.0,
            123_456_789.123_456_78,
        ];
        let mut state = after(&config, &[&plain[..], &MISREAD].concat());
        for norm in MISREAD {
            state.accept(&config, 1.0, norm);
        }
        state.refuse(7);
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<GuardState>(&text).unwrap(), state);
    }

    #[test]
    fn what_cannot_guard_is_refused() {
        let wrong = |change: fn(&mut GuardConfig)| {
            let mut config = GuardConfig::default();
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(wrong(|c| c.non_finite = Action::Warn).contains("guard.non_finite"));
        assert!(wrong(|c| c.window = 1).contains("guard.window"));
        assert!(wrong(|c| c.sigmas = f64::NAN).contains("guard.sigmas"));
        assert!(
            "rolback"
                .parse::<Action>()
                .unwrap_err()
                .to_string()
                .contains("rollback")
        );
    }
}
