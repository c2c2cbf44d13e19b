//! What stretches rotary embeddings over contexts longer than those they were trained with.

use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive_real};

/// How the frequencies ω of the pairs change for a longer context. In a configuration file the fields say which one it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, try_from = "ScalingFields")]
pub enum RopeScaling {
    /// Long wavelengths only.
    Llama3(Llama3Scaling),
    /// Long wavelengths, and a factor on queries and keys.
    Yarn(YarnScaling),
    /// All alike.
    Linear(LinearScaling),
}

/// The fields of every scaling: those that are there say which one it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScalingFields {
    factor: f64,
    original_max_position: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    attention_factor: Option<f64>,
    truncate: Option<bool>,
}

impl TryFrom<ScalingFields> for RopeScaling {
    type Error = ConfigError;

    fn try_from(fields: ScalingFields) -> Result<Self, ConfigError> {
        let ScalingFields { factor, .. } = fields;
        let original = fields.original_max_position;
        let llama = (fields.low_freq_factor, fields.high_freq_factor);
        let yarn = (
            fields.beta_fast,
            fields.beta_slow,
            fields.attention_factor,
            fields.truncate,
        );
        match (original, llama, yarn) {
            (None, (None, None), (None, None, None, None)) => {
                Ok(Self::Linear(LinearScaling { factor }))
            }
            (
                Some(original_max_position),
                (Some(low_freq_factor), Some(high_freq_factor)),
                (None, None, None, None),
            ) => Ok(Self::Llama3(Llama3Scaling {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position,
            })),
            (
                Some(original_max_position),
                (None, None),
                (Some(beta_fast), Some(beta_slow), Some(attention_factor), Some(truncate)),
            ) => Ok(Self::Yarn(YarnScaling {
                factor,
                original_max_position,
                beta_fast,
                beta_slow,
                attention_factor,
                truncate,
            })),
            _ => Err(ConfigError::new(
                "rope.scaling",
                "a table",
                "factor alone (linear), or with original_max_position and either low_freq_factor and high_freq_factor (llama3) \
                 or beta_fast, beta_slow, attention_factor and truncate (yarn)",
            )),
        }
    }
}

impl From<Llama3Scaling> for RopeScaling {
    fn from(scaling: Llama3Scaling) -> Self {
        Self::Llama3(scaling)
    }
}

/// `rope_type: linear`: ω/factor (position interpolation, arXiv 2306.15595; Gemma 3's global layers).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinearScaling {
    /// How much longer the new context is.
    pub factor: f64,
}

/// `rope_type: yarn` (arXiv 2309.00071): pair i of n turns at `(1 − r)·ω + r·ω/factor`, where r rises from 0 at the pair that turns
/// `beta_fast` times within the original context to 1 at the one that turns `beta_slow` times. Queries and keys are multiplied by
/// `attention_factor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct YarnScaling {
    /// How much longer the new context is.
    pub factor: f64,
    /// Context length of the unscaled model, in tokens.
    pub original_max_position: f64,
    /// Pairs that turn more often than this within it stay.
    pub beta_fast: f64,
    /// Pairs that turn less often than this are stretched by `factor`.
    pub beta_slow: f64,
    /// Factor on the rotated queries and keys: commonly 0.1·ln(factor) + 1.
    pub attention_factor: f64,
    /// The bounds of r are rounded to whole pairs, outwards.
    pub truncate: bool,
}

/// `rope_type: llama3` of the Llama 3.1 configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llama3Scaling {
    /// How much longer the new context is.
    pub factor: f64,
    /// Wavelengths above `original_max_position / low_freq_factor` are stretched by `factor`.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_max_position / high_freq_factor` stay.
    pub high_freq_factor: f64,
    /// Context length of the unscaled model, in tokens.
    pub original_max_position: f64,
}

impl RopeScaling {
    /// Refuses factors that are not finite numbers above 0, and ranges that are empty.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let fields: &[(&str, f64)] = match self {
            Self::Linear(linear) => &[("factor", linear.factor)],
            Self::Llama3(llama) => &[
                ("factor", llama.factor),
                ("low_freq_factor", llama.low_freq_factor),
                ("high_freq_factor", llama.high_freq_factor),
                ("original_max_position", llama.original_max_position),
                (
                    "high_freq_factor − low_freq_factor",
                    llama.high_freq_factor - llama.low_freq_factor,
                ),
            ],
            Self::Yarn(yarn) => &[
                ("factor", yarn.factor),
                ("original_max_position", yarn.original_max_position),
                ("beta_fast", yarn.beta_fast),
                ("beta_slow", yarn.beta_slow),
                ("attention_factor", yarn.attention_factor),
                ("beta_fast − beta_slow", yarn.beta_fast - yarn.beta_slow),
            ],
        };
        let mut fields = fields.iter();
        fields
            .try_for_each(|(field, value)| positive_real(&format!("rope.scaling.{field}"), *value))
    }
}

impl YarnScaling {
    /// r of each pair, from 0 (it stays) to 1 (it is stretched).
    pub(super) fn ramp(&self, theta: f64, head_dim: usize) -> Vec<f32> {
        let dim = head_dim as f64;
        // The pair, not a whole number, that turns so many times within the original context.
        let pair = |turns: f64| {
            let wavelength = self.original_max_position / (turns * core::f64::consts::TAU);
            dim * wavelength.ln() / (2.0 * theta.ln())
        };
        let (low, high) = (pair(self.beta_fast), pair(self.beta_slow));
        let (low, high) = match self.truncate {
            true => (low.floor(), high.ceil()),
            false => (low, high),
        };
        let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let pairs = 0..head_dim / 2;
        pairs
            .map(|i| (((i as f64 - low) / (high - low)).clamp(0.0, 1.0)) as f32)
            .collect()
    }
}

impl Llama3Scaling {
    /// Stretches long wavelengths, keeps short ones, interpolates between.
    pub(super) fn apply(&self, frequency: f64) -> f64 {
        let wavelength = core::f64::consts::TAU / frequency;
        let turns = self.original_max_position / wavelength;
        if turns < self.low_freq_factor {
            frequency / self.factor
        } else if turns > self.high_freq_factor {
            frequency
        } else {
            let keep =
                (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor);
            (1.0 - keep) * frequency / self.factor + keep * frequency
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rope::RotaryConfig;
    use super::*;

    /// Llama 3.1's settings: short wavelengths stay, long ones are stretched by the factor, those between lie between.
    #[test]
    fn llama3_stretches_long_wavelengths_only() {
        let plain = RotaryConfig {
            theta: 500_000.0,
            scaling: None,
        };
        let scaled = RotaryConfig {
            scaling: Some(RopeScaling::Llama3(Llama3Scaling {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position: 8192.0,
            })),
            ..plain.clone()
        };
        let mut seen = [0; 3];
        for (a, b) in plain
            .frequencies(128)
            .into_iter()
            .zip(scaled.frequencies(128))
        {
            let turns = 8192.0 * f64::from(a) / core::f64::consts::TAU;
            let ratio = f64::from(b / a);
            if turns > 4.0 {
                assert_eq!(ratio, 1.0);
                seen[0] += 1;
            } else if turns < 1.0 {
                assert!((ratio - 0.125).abs() < 1e-6);
                seen[1] += 1;
            } else {
                assert!((0.125..=1.0).contains(&ratio));
                seen[2] += 1;
            }
        }
        assert!(seen.iter().all(|n| *n > 0), "{seen:?}");
    }

    #[test]
    fn the_fields_say_which_scaling_it_is() {
        let linear = RopeScaling::Linear(LinearScaling { factor: 4.0 });
        let llama = RopeScaling::Llama3(Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position: 8192.0,
        });
        let yarn = RopeScaling::Yarn(YarnScaling {
            factor: 8.0,
            original_max_position: 8192.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            attention_factor: 1.0,
            truncate: true,
        });
        for scaling in [linear, llama, yarn] {
            let json = serde_json::to_string(&scaling).unwrap();
            let back: RopeScaling = serde_json::from_str(&json).unwrap();
            assert_eq!(back, scaling, "{json}");
        }
        for (json, word) in [
            (r#"{"factor":8.0,"beta_fast":32.0}"#, "(yarn)"),
            (r#"{"factor":8.0,"low_frq_factor":1.0}"#, "low_frq_factor"),
            (r#"{"low_freq_factor":1.0}"#, "`factor`"),
        ] {
            let error = serde_json::from_str::<RopeScaling>(json).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
