//! Rotary position embedding over halves (Llama, OLMo; arXiv 2104.09864), and what stretches it over longer contexts.

use core::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive_real};
use crate::precision::at_least_f32;

/// Rotary embedding settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotaryConfig {
    /// Base of the geometric sequence of wavelengths.
    pub theta: f64,
    /// A context longer than the one that `theta` was meant for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<RopeScaling>,
}

impl Default for RotaryConfig {
    fn default() -> Self {
        Self {
            theta: 500_000.0,
            scaling: None,
        }
    }
}

/// How the frequencies ω of the pairs change for a longer context. In a configuration file the fields say which one it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RopeScaling {
    /// Long wavelengths only.
    Llama3(Llama3Scaling),
    /// Long wavelengths, and a factor on queries and keys.
    Yarn(YarnScaling),
    /// All alike.
    Linear(LinearScaling),
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

impl RotaryConfig {
    /// Refuses bases and factors that are not finite numbers above 0.
    ///
    /// # Errors
    /// Names the field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive_real("rope.theta", self.theta)?;
        let fields: &[(&str, f64)] = match &self.scaling {
            None => &[],
            Some(RopeScaling::Linear(linear)) => &[("factor", linear.factor)],
            Some(RopeScaling::Llama3(llama)) => &[
                ("factor", llama.factor),
                ("low_freq_factor", llama.low_freq_factor),
                ("high_freq_factor", llama.high_freq_factor),
                ("original_max_position", llama.original_max_position),
                (
                    "high_freq_factor − low_freq_factor",
                    llama.high_freq_factor - llama.low_freq_factor,
                ),
            ],
            Some(RopeScaling::Yarn(yarn)) => &[
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

    /// The factor on rotated queries and keys.
    fn attention_factor(&self) -> f64 {
        match &self.scaling {
            Some(RopeScaling::Yarn(yarn)) => yarn.attention_factor,
            _ => 1.0,
        }
    }

    /// Angular frequency of each pair, radians per token, `head_dim / 2` of them: `1 / theta^(2i/head_dim)`, with the
    /// power and its inverse rounded to f32 as in the published models.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let ramp = match &self.scaling {
            Some(RopeScaling::Yarn(yarn)) => yarn.ramp(self.theta, head_dim),
            _ => Vec::new(),
        };
        (0..head_dim / 2)
            .map(|i| {
                let wavelength = self.theta.powf(2.0 * i as f64 / head_dim as f64) as f32;
                let frequency = wavelength.recip();
                match &self.scaling {
                    None => frequency,
                    Some(RopeScaling::Linear(linear)) => frequency / linear.factor as f32,
                    Some(RopeScaling::Llama3(llama)) => llama.apply(f64::from(frequency)) as f32,
                    Some(RopeScaling::Yarn(yarn)) => {
                        let stretched = (yarn.factor as f32 * wavelength).recip();
                        stretched * ramp[i] + frequency * (1.0 - ramp[i])
                    }
                }
            })
            .collect()
    }
}

impl YarnScaling {
    /// r of each pair, from 0 (it stays) to 1 (it is stretched).
    fn ramp(&self, theta: f64, head_dim: usize) -> Vec<f32> {
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
    fn apply(&self, frequency: f64) -> f64 {
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

/// Cosines and sines for positions, each `[1 or batch, 1, positions, head_dim / 2]`, in f32, times the factor that YaRN puts on queries
/// and keys.
#[derive(Debug, Clone)]
pub struct RotaryTables {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl RotaryTables {
    /// Computes the tables as the published models do: frequencies and angles are rounded to f32 before the cosine.
    /// Far out that rounding is visible (5e-5 at position 4095), and trained weights have only ever seen it.
    pub fn new(
        config: &RotaryConfig,
        head_dim: usize,
        positions: Range<usize>,
        device: &Device,
    ) -> Self {
        Self::of_rows(
            config,
            head_dim,
            &[positions.start],
            positions.len(),
            device,
        )
    }

    /// As [`new`](Self::new), `n` positions from each of `firsts` on: a row for each sequence of a batch.
    pub(crate) fn of_rows(
        config: &RotaryConfig,
        head_dim: usize,
        firsts: &[usize],
        n: usize,
        device: &Device,
    ) -> Self {
        let frequencies = config.frequencies(head_dim);
        let factor = config.attention_factor() as f32;
        let table = |f: fn(f64) -> f64| {
            let positions = firsts.iter().flat_map(|first| *first..first + n);
            let values: Vec<f32> = positions
                .flat_map(|t| {
                    frequencies
                        .iter()
                        .map(move |w| f(f64::from(t as f32 * *w)) as f32 * factor)
                })
                .collect();
            let shape = [firsts.len(), 1, n, frequencies.len()];
            Tensor::from_data(TensorData::new(values, shape), device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Cosines and sines, `[positions, head_dim / 2]` each, one row after the other where there are several.
    pub(crate) fn angles(&self) -> [Tensor<2>; 2] {
        let [rows, _, positions, half] = self.cos.dims();
        [&self.cos, &self.sin].map(|table| table.clone().reshape([rows * positions, half]))
    }

    /// Rotates each pair `(x[i], x[i + head_dim/2])` by its position's angle, in f32.
    ///
    /// # Shapes
    /// - input `[batch, heads, positions, head_dim]`
    /// - output the same
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let dtype = x.dtype();
        let x = at_least_f32(x);
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().cast(x.dtype()));
        let half = x.dims()[3] / 2;
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let turned_a = a.clone() * cos.clone() - b.clone() * sin.clone();
        let turned_b = b * cos + a * sin;
        Tensor::cat(vec![turned_a, turned_b], 3).cast(dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_fall_geometrically() {
        let config = RotaryConfig {
            theta: 10_000.0,
            scaling: None,
        };
        assert_eq!(config.frequencies(8), vec![1.0, 0.1, 0.01, 0.001]);
    }

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
    fn impossible_settings_are_refused() {
        let theta = RotaryConfig {
            theta: -1.0,
            scaling: None,
        };
        assert!(
            theta
                .validate()
                .unwrap_err()
                .to_string()
                .contains("rope.theta")
        );
    }
}
