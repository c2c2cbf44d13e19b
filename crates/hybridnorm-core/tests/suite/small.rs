//! A small decoder, and what it says.

use burn::tensor::{Device, Int, Tensor};
use hybridnorm_core::{Decoder, DecoderConfig, Pass};
use hybridnorm_testing::values;

/// A decoder of two layers.
pub fn config() -> DecoderConfig {
    DecoderConfig {
        n_kv_heads: 2,
        ..DecoderConfig::new(50, 32, 4, 2)
    }
}

/// `[rows, seq]`.
pub fn tokens(rows: &[&[i64]], device: &Device) -> Tensor<2, Int> {
    let rows = rows
        .iter()
        .map(|row| Tensor::<1, Int>::from_ints(*row, device).unsqueeze());
    Tensor::cat(rows.collect(), 0)
}

/// Logits of each position, `[seq][vocab]`.
pub fn logits(model: &Decoder, row: &[i64], pass: &mut Pass, device: &Device) -> Vec<Vec<f64>> {
    let logits = model.forward_in(tokens(&[row], device), pass);
    let [_, _, vocab] = logits.dims();
    values(logits).chunks(vocab).map(<[f64]>::to_vec).collect()
}
