//! Passes that are divided to save memory compute what undivided ones do.

use burn::tensor::{DType, Device};
use hybridnorm_testing::{any_device, apply, every_device};
use hybridnorm_train::engine::{Precision, Recompute, TrainError};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

/// Half the distance of 1 from the next number.
const F32: f64 = 1.0 / (1 << 24) as f64;
const BF16: f64 = 1.0 / (1 << 8) as f64;

/// The figures of a run.
fn run(config: RunConfig, device: &Device) -> Vec<(u64, u64, u64, u64)> {
    let dir = TempDir::new().unwrap();
    tiny::run(config, dir.path(), device, false).unwrap();
    tiny::steps(dir.path())
}

/// Dense; sparse in both conventions of the losses, with jitter; tied.
fn configs() -> Vec<RunConfig> {
    let mut tied = tiny::config(6, 2);
    tied.model.tied = true;
    let mut jittered = tiny::sparse(6, 2);
    let sparse = jittered.sparse.as_mut().unwrap();
    sparse.router.jitter = Some(0.1);
    let mut pooled = tiny::sparse(6, 4);
    let sparse = pooled.sparse.as_mut().unwrap();
    sparse.losses.convention = hybridnorm_moe::LossConvention::HuggingFace;
    vec![tied, jittered, pooled, tiny::config(6, 4)]
}

/// Recomputed blocks, logits in slices: other orders of the same sums, and on flex other layouts of the same factors. Figures differ by
/// roundings of f32, and these grow over the steps.
#[apply(every_device!)]
fn divided_passes_differ_by_roundings(#[case] device: &Device) {
    for mut config in configs() {
        let whole = run(config.clone(), device);
        for (recompute, rows) in [
            (Recompute::None, Some(5)),
            (Recompute::Block, None),
            (Recompute::Block, Some(7)),
        ] {
            config.training.recompute = recompute;
            config.training.logit_rows = rows;
            let sliced = run(config.clone(), device);
            for (a, b) in whole.iter().zip(&sliced) {
                let near = |a: u64, b: u64| (f64::from_bits(a) / f64::from_bits(b) - 1.0).abs();
                assert!(near(a.1, b.1) < 32.0 * F32, "loss of step {}", a.0);
                assert!(
                    near(a.2, b.2) < 256.0 * F32,
                    "gradient norm of step {}",
                    a.0
                );
            }
        }
    }
}

/// Matrices multiplied in bf16: the losses of f32 to a few of its roundings, over a whole run that learns; refused where the device has
/// no such type.
#[apply(every_device!)]
fn bf16_trains_like_f32(#[case] device: &Device) {
    for mut config in configs() {
        config.training.steps = 30;
        let exact = run(config.clone(), device);
        config.training.precision = Precision::Bf16;
        if !device.supports_dtype(DType::BF16) {
            let dir = TempDir::new().unwrap();
            let error = tiny::run(config, dir.path(), device, false).unwrap_err();
            assert!(matches!(error, TrainError::Precision { .. }), "{error}");
            assert!(error.to_string().contains("it has f32"), "{error}");
            continue;
        }
        for recompute in [Recompute::None, Recompute::Block] {
            config.training.recompute = recompute;
            let rounded = run(config.clone(), device);
            let mut differ = false;
            for (a, b) in exact.iter().zip(&rounded) {
                let near = |a: u64, b: u64| (f64::from_bits(a) / f64::from_bits(b) - 1.0).abs();
                assert!(near(a.1, b.1) < 4.0 * BF16, "loss of step {}", a.0);
                differ |= a.1 != b.1;
            }
            assert!(differ, "nothing was rounded");
        }
    }
}

/// The master weights and the optimiser's state stay f32: a step too small for bf16 is not lost.
#[test]
fn master_weights_are_f32() {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let mut config = tiny::config(2, 4);
    config.training.precision = Precision::Bf16;
    tiny::run(config, dir.path(), device, false).unwrap();
    let weights = tiny::tensors(dir.path(), 2, "model.safetensors");
    let fine = |value: &f32| value.to_bits() & 0xffff != 0;
    for (name, values) in weights {
        let share = values.iter().filter(|value| fine(value)).count() as f64 / values.len() as f64;
        assert!(
            share > 0.9,
            "{name}: {share} of its numbers need more bits than bf16 has"
        );
    }
}
