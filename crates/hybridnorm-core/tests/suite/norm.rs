//! Norms against closed forms.

use burn::tensor::{Device, Tensor};
use hybridnorm_core::{NormConfig, NormKind};
use hybridnorm_testing::{apply, every_device, values};

fn norm(x: Vec<f32>, kind: NormKind, epsilon: f64, device: &Device) -> Vec<f64> {
    let config = NormConfig {
        kind,
        epsilon,
        ..NormConfig::new(x.len())
    };
    let norm = config.init(device).unwrap();
    values(norm.forward(Tensor::<1>::from_floats(x.as_slice(), device)))
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (a, b) in found.iter().zip(expected) {
        assert!((a - b).abs() <= tolerance, "{found:?} is not {expected:?}");
    }
}

#[apply(every_device!)]
fn rms_divides_by_the_root_mean_square(#[case] device: &Device) {
    // mean square of (3, 4, 0, 0) is 25/4
    let y = norm(vec![3.0, 4.0, 0.0, 0.0], NormKind::Rms, 1e-12, device);
    assert_close(&y, &[1.2, 1.6, 0.0, 0.0], 1e-6);
}

#[apply(every_device!)]
fn layer_norm_removes_mean_and_variance(#[case] device: &Device) {
    // mean 2, biased variance 1
    let y = norm(vec![1.0, 3.0, 1.0, 3.0], NormKind::Layer, 1e-12, device);
    assert_close(&y, &[-1.0, 1.0, -1.0, 1.0], 1e-6);
}

#[apply(every_device!)]
fn epsilon_bounds_small_and_zero_rows(#[case] device: &Device) {
    assert_eq!(
        norm(vec![0.0; 4], NormKind::Rms, 1e-5, device),
        vec![0.0; 4]
    );
    // x²  ≪ ε: y = x / √ε
    let y = norm(vec![1e-8; 4], NormKind::Rms, 1e-4, device);
    assert_close(&y, &[1e-6; 4], 1e-12);
}

/// LayerNorm(x) = RMSNorm(x − mean(x)) (paper, appendix B.5).
#[apply(every_device!)]
fn layer_norm_is_rms_norm_of_the_centred_input(#[case] device: &Device) {
    let x = vec![0.3f32, -1.2, 2.5, 0.9, -0.1, 1.7];
    let mean = x.iter().sum::<f32>() / 6.0;
    let centred = x.iter().map(|v| v - mean).collect();
    let layer = norm(x, NormKind::Layer, 1e-5, device);
    let rms = norm(centred, NormKind::Rms, 1e-5, device);
    assert_close(&layer, &rms, 1e-6);
}

#[apply(every_device!)]
fn impossible_norms_are_refused(#[case] device: &Device) {
    let refuse = |config: NormConfig, word: &str| {
        let error = config.init(device).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refuse(NormConfig::new(0), "norm.d");
    refuse(
        NormConfig {
            epsilon: 0.0,
            ..NormConfig::new(4)
        },
        "norm.epsilon",
    );
    refuse(
        NormConfig {
            epsilon: f64::NAN,
            ..NormConfig::new(4)
        },
        "norm.epsilon",
    );
}
