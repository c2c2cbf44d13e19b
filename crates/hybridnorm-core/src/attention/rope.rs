//! Rotary position embedding over halves (Llama, OLMo; arXiv 2104.09864).

use core::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::error::{ConfigError, positive_real};
use crate::precision::at_least_f32;

pub use super::rope_scaling::{LinearScaling, Llama3Scaling, RopeScaling, YarnScaling};

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

impl RotaryConfig {
    /// Refuses bases and factors that are not finite numbers above 0.
    ///
    /// # Errors
    /// Names the field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive_real("rope.theta", self.theta)?;
        if self.theta <= 1.0 && matches!(self.scaling, Some(RopeScaling::Yarn(_))) {
            // It divides by the logarithm.
            let allowed = "above 1 with YaRN scaling";
            return Err(ConfigError::new("rope.theta", self.theta, allowed));
        }
        self.scaling.as_ref().map_or(Ok(()), RopeScaling::validate)
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
