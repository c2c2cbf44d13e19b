//! Losses against closed forms.

use burn::tensor::{Device, Int, Tensor};
use hybridnorm_core::loss::{next_token_loss, token_losses};
use hybridnorm_testing::{apply, every_device, values};

#[apply(every_device!)]
fn uniform_logits_cost_the_logarithm_of_the_vocabulary(#[case] device: &Device) {
    let targets = Tensor::<2, Int>::from_ints([[0, 5, 9]], device);
    let loss = values(next_token_loss(Tensor::zeros([1, 3, 10], device), targets));
    assert!((loss[0] - 10f64.ln()).abs() < 1e-6);
}

#[apply(every_device!)]
fn ignored_targets_cost_nothing_and_large_logits_stay_finite(#[case] device: &Device) {
    // softmax(1e4, 0) = (1, 0): the first target is certain, the second costs 1e4
    let logits = Tensor::<2>::from_floats([[1e4, 0.0], [1e4, 0.0], [0.0, 0.0]], device);
    let targets = Tensor::<1, Int>::from_ints([0, 1, 0], device);
    let ignored = Tensor::<1, Int>::from_ints([0, 0, 1], device).equal_elem(1);
    let losses = token_losses(logits, targets, Some(ignored));
    assert_eq!(values(losses.nll), vec![0.0, 1e4, 0.0]);
    assert_eq!(values(losses.squared_lse), vec![1e8, 1e8, 0.0]);
}

/// ∂nll/∂logits = softmax − one-hot.
#[apply(every_device!)]
fn the_gradient_is_softmax_minus_target(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let logits =
        Tensor::<2>::from_floats([[0.0, (2f64).ln(), (5f64).ln()]], &device).require_grad();
    let targets = Tensor::<1, Int>::from_ints([2], &device);
    let grads = token_losses(logits.clone(), targets, None)
        .nll
        .sum()
        .backward();
    let grad: Vec<f64> = logits
        .grad(&grads)
        .unwrap()
        .into_data()
        .iter::<f64>()
        .collect();
    for (found, expected) in grad.iter().zip([1.0 / 8.0, 2.0 / 8.0, 5.0 / 8.0 - 1.0]) {
        assert!((found - expected).abs() < 1e-6, "{grad:?}");
    }
}
