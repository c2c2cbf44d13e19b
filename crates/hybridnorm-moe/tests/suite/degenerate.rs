//! Input on the edge: values and gradients are right there too.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use hybridnorm_core::{FeedForward, Pass};
use hybridnorm_moe::{RoutingError, SparseConfig, SparseFeedForward};
use hybridnorm_testing::{apply, every_device, largest, values};

use crate::layer::{D_MODEL, Found, check, chosen, input, layer};

/// A router whose logits are the given ones for every token: the first input feature is one.
fn steered(
    config: &SparseConfig,
    logits: &[f32],
    device: &Device,
) -> (SparseFeedForward, Tensor<3>) {
    let mut layer = layer(config, device);
    let mut weight = vec![0f32; D_MODEL * logits.len()];
    weight[..logits.len()].copy_from_slice(logits);
    let weight = burn::tensor::TensorData::new(weight, [D_MODEL, logits.len()]);
    layer.router.linear.weight = Param::from_tensor(Tensor::from_data(weight, device));
    let ones = Tensor::ones([2, 9, 1], device);
    let x = Tensor::cat(vec![ones, input(2, 9, device).narrow(2, 1, D_MODEL - 1)], 2);
    (layer, x)
}

#[apply(every_device!)]
fn all_tokens_to_one_expert(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig::new(4, 1, 6);
    let (layer, x) = steered(&config, &[0.0, 0.0, 3.0, 0.0], &device);
    let Found { routing } = check(&config, &layer, x, None);
    assert_eq!(routing.load, [0, 0, 18, 0]);
}

#[apply(every_device!)]
fn ties_go_to_the_lower_expert(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig::new(4, 2, 6);
    let (layer, x) = steered(&config, &[0.5, 1.0, 1.0, 1.0], &device);
    let Found { routing } = check(&config, &layer, x, None);
    assert_eq!(chosen(&routing), [1, 2].repeat(18));
}

#[apply(every_device!)]
fn all_experts_for_every_token(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig::new(3, 3, 6);
    let Found { routing } = check(
        &config,
        &layer(&config, &device),
        input(2, 5, &device),
        None,
    );
    assert_eq!(routing.load, [10; 3]);
    assert!(
        values(routing.weights.sum_dim(1))
            .iter()
            .all(|sum| (sum - 1.0).abs() < 1e-6)
    );
}

#[apply(every_device!)]
fn one_expert(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig::new(1, 1, 6);
    let Found { routing } = check(
        &config,
        &layer(&config, &device),
        input(2, 5, &device),
        None,
    );
    assert_eq!(values(routing.weights), [1.0; 10]);
}

#[apply(every_device!)]
fn one_token(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig::new(4, 2, 6);
    check(
        &config,
        &layer(&config, &device),
        input(1, 1, &device),
        None,
    );
}

/// Huge logits are not infinite ones.
#[apply(every_device!)]
fn large_logits_stay_finite(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig::new(4, 2, 6);
    let (layer, x) = steered(&config, &[3e4, 2e4, -3e4, 0.0], &device);
    let mut pass = Pass::causal();
    let y = layer.forward(x, &mut pass);
    let auxiliary = config.losses.of(&pass.reports);
    assert!(largest(&values(auxiliary.add_to(y.sum()))).is_finite());
    // 0.001 · (3e4)² / 2, the divisor holds top_k
    let z = values(auxiliary.z.unwrap())[0];
    assert!((z / 4.5e5 - 1.0).abs() < 1e-6, "{z}");
}

/// NaN goes through without a panic and is named afterwards.
#[apply(every_device!)]
fn logits_that_are_not_finite_are_named(#[case] device: &Device) {
    let config = SparseConfig::new(4, 2, 6);
    for bad in [f32::NAN, f32::INFINITY] {
        let layer = layer(&config, device);
        let mut values = vec![0.1f32; 5 * D_MODEL];
        values[3 * D_MODEL] = bad;
        let x = Tensor::from_data(
            burn::tensor::TensorData::new(values, [1, 5, D_MODEL]),
            device,
        );
        let mut pass = Pass::causal();
        let y = hybridnorm_testing::values(layer.forward(x, &mut pass));
        assert!(
            y[..3 * D_MODEL].iter().all(|y| y.is_finite()),
            "tokens before it are not touched"
        );
        let error = pass.reports[0].check().unwrap_err();
        assert!(
            matches!(error, RoutingError::NonFinite { token: 3, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("token 3"));
    }
}
