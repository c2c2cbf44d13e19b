//! Whether a folder, read back, computes what the model computes.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Int, Tensor, TensorData, TensorReadError};
use hybridnorm_core::{Decoder, DecoderConfig};
use hybridnorm_interop::export::WeightType;
use hybridnorm_moe::FeedForwardLayer;

/// Sequences and tokens that both models see.
const SEQUENCES: usize = 2;
const TOKENS: usize = 64;
/// Of the largest logit. The same program reads the same numbers, so that only the order of sums may differ, on a device where it is
/// not fixed.
const TOLERANCE: f32 = 1e-5;

/// How two models' logits compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parity {
    /// Logits compared.
    pub logits: usize,
    /// The largest of the model's own, by magnitude.
    pub largest: f32,
    /// The largest difference; NaN where either is none.
    pub difference: f32,
}

impl Parity {
    pub(super) fn of(expected: &[f32], found: &[f32]) -> Self {
        let largest = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
        let differences = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
        let worst = |most: f32, x: f32| if x.is_nan() || x > most { x } else { most };
        Self {
            logits: expected.len(),
            largest,
            difference: match expected.len() == found.len() {
                true => differences.fold(0.0, worst),
                false => f32::NAN,
            },
        }
    }

    /// Whether the folder is the model.
    pub fn holds(&self) -> bool {
        self.difference <= TOLERANCE * self.largest
    }
}

/// Token ids from all over the vocabulary, `[sequences, tokens]`.
pub fn probe(config: &DecoderConfig) -> TensorData {
    let tokens = config.max_seq_len.min(TOKENS);
    let n = SEQUENCES * tokens;
    let ids = (0..n as u64).map(|i| (i * 7919 + 13) % config.vocab_size as u64);
    TensorData::new(
        ids.map(|id| id as i64).collect::<Vec<_>>(),
        [SEQUENCES, tokens],
    )
}

/// The logits of `model` for the token ids `tokens`.
pub fn logits(
    model: &Decoder<FeedForwardLayer>,
    tokens: &TensorData,
    device: &Device,
) -> Result<Vec<f32>, TensorReadError> {
    let tokens = Tensor::<2, Int>::from_data(tokens.clone(), device);
    model.forward(tokens).try_into_vec_as()
}

/// `model` with its parameters as they are written.
pub fn rounded<M: Module>(model: M, dtype: WeightType) -> M {
    match dtype {
        WeightType::F32 => model,
        WeightType::Bf16 => model.map(&mut Rounding(dtype)),
    }
}

struct Rounding(WeightType);

impl ModuleMapper for Rounding {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let (device, shape) = (tensor.device(), tensor.shape());
            // A parameter that cannot be read stays: the comparison that follows says so.
            let Ok(values) = tensor.clone().try_into_vec_as::<f32>() else {
                return tensor;
            };
            let values: Vec<f32> = values
                .into_iter()
                .map(|value| self.0.round(value))
                .collect();
            Tensor::from_data(TensorData::new(values, shape), &device)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_logit_is_seen() {
        let expected = [1.0, -8.0, 0.5];
        assert!(Parity::of(&expected, &expected).holds());
        assert!(Parity::of(&expected, &[1.0, -8.0, 0.500_05]).holds());
        assert!(!Parity::of(&expected, &[1.0, -8.0, 0.501]).holds());
        assert!(!Parity::of(&expected, &[f32::NAN, -8.0, 0.5]).holds());
        assert!(!Parity::of(&expected, &[1.0, -8.0]).holds());
        assert!(!Parity::of(&[f32::NAN], &[f32::NAN]).holds());
    }
}
