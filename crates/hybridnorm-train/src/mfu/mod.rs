//! Model FLOPs utilisation (PaLM, arXiv 2204.02311, appendix B): what the model's arithmetic needs a second, over what the device
//! could do. `docs/metrics.md` has the formula.

mod peak;

use core::fmt;

use burn::tensor::Device;
use hybridnorm_core::ConfigError;
use hybridnorm_moe::ModelConfig;

pub use peak::{PEAKS, Peak, PeakRow};

use crate::run::RunConfig;
use crate::sizes::Parameters;

/// What it takes to turn tokens per second into a utilisation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Utilization {
    /// Floating-point operations that a step needs for a token, forward and backward.
    pub flops_per_token: f64,
    /// What the device could do.
    pub peak: Peak,
}

impl Utilization {
    /// Of a run on `device`, which is measured where no data sheet is known; `None` where it cannot be.
    ///
    /// # Errors
    /// When there is no such model.
    pub fn of(config: &RunConfig, device: &Device) -> Result<Option<Self>, ConfigError> {
        let flops_per_token = flops_per_token(&config.model_config(), config.training.seq)?;
        Ok(
            Peak::of(device, config.training.precision).map(|peak| Self {
                flops_per_token,
                peak,
            }),
        )
    }

    /// The share of the peak that `tokens_per_s` amounts to.
    pub fn at(&self, tokens_per_s: f64) -> f64 {
        self.flops_per_token * tokens_per_s / (self.peak.tflops * 1e12)
    }
}

impl fmt::Display for Utilization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            flops_per_token,
            peak: Peak { tflops, measured },
        } = self;
        let giga = flops_per_token / 1e9;
        write!(
            f,
            "{giga:.3} GFLOP a token; the device does {tflops:.3} TFLOP/s at most"
        )?;
        match measured {
            true => f.write_str(" (est.: a matrix product, measured just now)"),
            false => f.write_str(" (its data sheet)"),
        }
    }
}

/// 6N + 12·L·H·Q·T: forward and backward of N multiplied parameters and of L layers of H heads of width Q over T positions.
///
/// N leaves out an embedding that is only looked up, and the experts that a token does not see. As PaLM counts, the half of
/// the scores that the causal mask hides is in; what a window hides is not.
///
/// # Errors
/// When there is no such model.
pub fn flops_per_token(model: &ModelConfig, seq: usize) -> Result<f64, ConfigError> {
    let decoder = &model.decoder;
    let looked_up = match decoder.tied {
        true => 0,
        false => decoder.padded_vocab_size * decoder.d_model,
    };
    let multiplied = Parameters::of(model)?.active - looked_up;
    let seen = |layer| decoder.window(layer).map_or(seq, |window| window.min(seq));
    let positions: usize = (0..decoder.n_layers).map(seen).sum();
    let width = decoder.n_heads * decoder.head_dim();
    Ok(6.0 * multiplied as f64 + 12.0 * width as f64 * positions as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    /// Forward products of a dense layer, written out one by one, two operations for each multiplication, three times over:
    /// once forward, twice backward.
    #[test]
    fn the_formula_counts_every_product() {
        let mut model = presets::find("151m").unwrap().model;
        let c = &mut model.decoder;
        (c.tied, c.norm.affine, c.norm.attention_affine) = (false, false, false);
        let seq = 512.0;
        let [d, l, h, k, q, f, v] = [
            c.d_model,
            c.n_layers,
            c.n_heads,
            c.n_kv_heads,
            c.head_dim(),
            c.d_ff,
            c.padded_vocab_size,
        ]
        .map(|n| n as f64);
        let layer = d * (h + 2.0 * k) * q + 2.0 * seq * h * q + h * q * d + 3.0 * d * f;
        let expected = 3.0 * 2.0 * (l * layer + d * v);
        let found = flops_per_token(&model, 512).unwrap();
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        // The window hides positions.
        model.decoder.sliding_window = Some(128);
        let windowed = flops_per_token(&model, 512).unwrap();
        assert!((found - windowed - 12.0 * l * h * q * 384.0).abs() < 1.0);
        // In one layer it does not.
        model.decoder.global_layers = vec![0];
        let one = flops_per_token(&model, 512).unwrap();
        assert!((one - windowed - 12.0 * h * q * 384.0).abs() < 1.0);
        model.decoder.global_layers.clear();
        // A tied embedding is the head too.
        model.decoder.tied = true;
        assert_eq!(flops_per_token(&model, 512).unwrap(), windowed);
    }

    #[test]
    fn utilization_is_a_share_of_the_peak() {
        let utilization = Utilization {
            flops_per_token: 6e9,
            peak: Peak {
                tflops: 300.0,
                measured: false,
            },
        };
        assert_eq!(utilization.at(25_000.0), 0.5);
    }
}
