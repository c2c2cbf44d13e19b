//! A router that has collapsed is reported, and both ways of balancing repair it.

use burn::module::Param;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use hybridnorm_core::{FeedForward, Pass};
use hybridnorm_moe::health::HealthMeter;
use hybridnorm_moe::{RouterHealth, SparseConfig, SparseFeedForward};
use hybridnorm_testing::{apply, every_device};

use crate::layer::{D_MODEL, layer, numbers};

const EXPERTS: usize = 8;

/// A layer whose router prefers experts 0 and 1 for every token: the first input feature is one.
fn collapsed(config: &SparseConfig, device: &Device) -> SparseFeedForward {
    let mut layer = layer(config, device);
    let mut weight = vec![0f32; D_MODEL * EXPERTS];
    weight[..2].copy_from_slice(&[2.0, 1.9]);
    for (at, weight) in weight.iter_mut().enumerate().skip(EXPERTS) {
        *weight = ((at * 37 % 11) as f32 - 5.0) / 40.0;
    }
    let weight = TensorData::new(weight, [D_MODEL, EXPERTS]);
    layer.router.linear.weight = Param::from_tensor(Tensor::from_data(weight, device));
    layer
}

fn tokens(device: &Device) -> Tensor<3> {
    let ones = Tensor::ones([4, 32, 1], device);
    let rest = numbers([4, 32, D_MODEL - 1], 3, device);
    Tensor::cat(vec![ones, rest], 2)
}

fn health(layer: &SparseFeedForward, device: &Device) -> RouterHealth {
    let mut pass = Pass::causal();
    layer.forward(tokens(device), &mut pass);
    let meters: Vec<HealthMeter> = pass.reports.iter().map(HealthMeter::new).collect();
    HealthMeter::read(&meters).unwrap().remove(0)
}

#[track_caller]
fn assert_collapsed(health: &RouterHealth) {
    let warning = health.collapse().expect("a collapsed router is reported");
    assert!(
        warning.contains("collapsed") && warning.contains("of 8 experts"),
        "{warning}"
    );
    assert!(health.dead >= 5 && health.max_violation > 2.0, "{health:?}");
    assert!(health.effective_experts < 3.0, "{health:?}");
}

#[track_caller]
fn assert_healthy(health: &RouterHealth) {
    assert_eq!(health.collapse(), None, "{health:?}");
    assert!(health.dead == 0 && health.max_violation < 1.0, "{health:?}");
    assert!(health.effective_experts > 7.0, "{health:?}");
}

/// Steps of Adam on the auxiliary losses alone.
fn balance(
    config: &SparseConfig,
    mut layer: SparseFeedForward,
    device: &Device,
) -> SparseFeedForward {
    let mut optimizer = AdamConfig::new().init();
    for _ in 0..60 {
        let mut pass = Pass::causal();
        layer.forward(tokens(device), &mut pass);
        let Some(loss) = config.losses.of(&pass.reports).balance else {
            return layer;
        };
        let grads = GradientsParams::from_grads(loss.backward(), &layer);
        layer = optimizer.step(0.05, layer, grads);
    }
    layer
}

#[apply(every_device!)]
fn the_balancing_loss_repairs_a_collapsed_router(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let mut config = SparseConfig::new(EXPERTS, 2, 6);
    let broken = collapsed(&config, &device);
    assert_collapsed(&health(&broken, &device));
    assert_healthy(&health(&balance(&config, broken.clone(), &device), &device));
    // Without its weight it stays as it was.
    config.losses.balance = 0.0;
    assert_collapsed(&health(&balance(&config, broken, &device), &device));
}

#[apply(every_device!)]
fn the_selection_bias_repairs_a_collapsed_router(#[case] device: &Device) {
    let mut config = SparseConfig::new(EXPERTS, 2, 6);
    config.router.bias_update = Some(0.005);
    let mut layer = collapsed(&config, device);
    assert_collapsed(&health(&layer, device));
    for _ in 0..150 {
        let mut pass = Pass::causal();
        layer.forward(tokens(device), &mut pass);
        let load = HealthMeter::new(&pass.reports[0]).load().to_vec();
        layer = layer.rebalance(&load);
    }
    assert_healthy(&health(&layer, device));
}

/// Health over several passes is that of all their tokens.
#[apply(every_device!)]
fn a_meter_sums_up_passes(#[case] device: &Device) {
    let layer = layer(&SparseConfig::new(EXPERTS, 2, 6), device);
    let x = tokens(device);
    let route = |x: Tensor<3>| {
        let mut pass = Pass::causal();
        layer.forward(x, &mut pass);
        pass.reports.remove(0)
    };
    let whole = HealthMeter::read(&[HealthMeter::new(&route(x.clone()))]).unwrap();
    let mut meter = HealthMeter::new(&route(x.clone().narrow(0, 0, 1)));
    meter.add(&route(x.narrow(0, 1, 3)));
    let parts = HealthMeter::read(&[meter]).unwrap();
    assert_eq!(whole[0].load, parts[0].load);
    assert!((whole[0].entropy - parts[0].entropy).abs() < 1e-5);
    assert!(whole[0].entropy > 0.0 && whole[0].entropy < 1.0);
}
