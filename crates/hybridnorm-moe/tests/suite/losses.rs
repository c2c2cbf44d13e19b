//! Balancing losses in both conventions, and their gradients, against sums written out in f64. The authors' own numbers are in the
//! program's reference cases.

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use hybridnorm_core::{DecoderConfig, Pass, loss};
use hybridnorm_moe::losses::{load_balancing, z_loss};
use hybridnorm_moe::{LossConfig, LossConvention, ModelConfig, Routing, SparseConfig};
use hybridnorm_testing::{apply, every_device, largest, largest_difference, values};

use crate::layer::numbers;

const TOKENS: usize = 14;
const EXPERTS: usize = 6;
const K: usize = 2;

/// A layer that sends token t to experts t and t+1, with these logits.
fn routing(logits: Tensor<2>) -> Routing {
    let device = logits.device();
    let chosen: Vec<i64> = (0..TOKENS)
        .flat_map(|t| [t % 4, (t + 1) % 4])
        .map(|e| e as i64)
        .collect();
    let mut load = vec![0; EXPERTS];
    chosen.iter().for_each(|e| load[*e as usize] += 1);
    let chosen = Tensor::<2, Int>::from_data(TensorData::new(chosen, [TOKENS, K]), &device);
    let probabilities = activation::softmax(logits.clone(), 1);
    Routing {
        layer: None,
        weights: probabilities.clone().gather(1, chosen.clone()),
        probabilities,
        logits,
        chosen,
        load,
        dropped: 0,
        error: None,
    }
}

/// (balance, its gradient, z, its gradient) by hand, gradients layer after layer.
fn by_hand(
    logits: &[Vec<f64>],
    load: &[usize],
    convention: LossConvention,
) -> [(f64, Vec<f64>); 2] {
    let layers = logits.len() as f64;
    let (n, e) = (TOKENS as f64, EXPERTS as f64);
    let k = match convention {
        LossConvention::Authors => K as f64,
        LossConvention::HuggingFace => 1.0,
    };
    let softmax = |row: &[f64]| {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        (
            row.iter().map(|x| x.exp() / sum).collect::<Vec<_>>(),
            sum.ln(),
        )
    };
    let (mut balance, mut z) = (0.0, 0.0);
    let (mut d_balance, mut d_z) = (Vec::new(), Vec::new());
    // Both layers have the same load, so pooling it changes its sum alone: Σ over layers, times layers, over layers.
    for rows in logits {
        for row in rows.chunks(EXPERTS) {
            let (p, lse) = softmax(row);
            let factor = e / (layers * n * k) / n;
            let slope: Vec<f64> = load.iter().map(|count| *count as f64 * factor).collect();
            let mean: f64 = slope.iter().zip(&p).map(|(s, p)| s * p).sum();
            balance += mean;
            z += lse * lse / (layers * n * k);
            d_balance.extend(slope.iter().zip(&p).map(|(s, p)| p * (s - mean)));
            d_z.extend(p.iter().map(|p| 2.0 * lse * p / (layers * n * k)));
        }
    }
    [(balance, d_balance), (z, d_z)]
}

#[apply(every_device!)]
fn both_conventions_are_as_written(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let logits = [4, 5].map(|seed| {
        let logits = numbers([TOKENS, EXPERTS], seed, &device) * 2.0;
        logits.detach().require_grad()
    });
    for convention in [LossConvention::Authors, LossConvention::HuggingFace] {
        let reports = logits.clone().map(routing);
        let numbers = logits.clone().map(values);
        let exact = by_hand(&numbers, &reports[0].load, convention);
        for (loss, (value, gradient)) in [
            load_balancing(&reports, convention),
            z_loss(&reports, convention),
        ]
        .into_iter()
        .zip(exact)
        {
            let found = values(loss.clone())[0];
            assert!(
                (found / value - 1.0).abs() < 1e-6,
                "{convention:?}: {found} instead of {value}"
            );
            let grads = loss.backward();
            let found = logits
                .iter()
                .flat_map(|logits| values(logits.grad(&grads).unwrap()));
            let difference = largest_difference(&found.collect::<Vec<_>>(), &gradient);
            assert!(
                difference < 1e-7,
                "{convention:?}: gradient off by {difference}"
            );
        }
    }
}

/// Uniform routing gives 1 and K; everything to one expert gives E for K = 1.
#[apply(every_device!)]
fn the_scale_is_the_documented_one(#[case] device: &Device) {
    let flat = Routing {
        load: vec![5; EXPERTS],
        ..routing(Tensor::zeros([TOKENS, EXPERTS], device))
    };
    let flat = Routing {
        load: vec![TOKENS * K / EXPERTS; EXPERTS],
        ..flat
    };
    let uniform = |convention| values(load_balancing(&[flat.clone(), flat.clone()], convention))[0];
    let share = (TOKENS * K / EXPERTS * EXPERTS) as f64 / (TOKENS * K) as f64;
    assert!((uniform(LossConvention::Authors) - share).abs() < 1e-6);
    assert!((uniform(LossConvention::HuggingFace) - share * K as f64).abs() < 1e-6);
}

#[apply(every_device!)]
fn weights_of_zero_leave_a_loss_out(#[case] device: &Device) {
    let report = routing(Tensor::zeros([TOKENS, EXPERTS], device));
    let config = LossConfig {
        balance: 0.0,
        z: 0.5,
        ..LossConfig::default()
    };
    let auxiliary = config.of(std::slice::from_ref(&report));
    assert!(auxiliary.balance.is_none());
    let z = (EXPERTS as f64).ln().powi(2) / K as f64;
    let sum = values(auxiliary.add_to(Tensor::ones([1], device)))[0];
    assert!((sum - 1.0 - 0.5 * z).abs() < 1e-6);
    assert!(config.of(&[]).z.is_none(), "a dense model has no routers");
}

/// A whole sparse model: recomputing activations in the backward pass, and splitting a batch into micro-batches, change nothing but
/// roundings. The balance of a micro-batch is its own, so both sides take micro-batches that are equal.
#[apply(every_device!)]
fn recomputation_and_accumulation_keep_every_gradient(#[case] device: &Device) {
    let config = ModelConfig {
        decoder: DecoderConfig::new(50, 32, 4, 2),
        sparse: Some(SparseConfig::new(4, 2, 24)),
    };
    let losses = LossConfig {
        balance: 0.5,
        z: 0.1,
        ..LossConfig::default()
    };
    let gradients = |device: &Device, rows: usize, passes: usize| {
        let model = config.init(device).unwrap();
        let row = Tensor::<1, Int>::arange(3..40, device).unsqueeze::<2>();
        let tokens = row.repeat_dim(0, rows);
        let mut sum = GradientsAccumulator::new();
        for _ in 0..passes {
            let mut pass = Pass::causal();
            let (input, target) = (
                tokens.clone().narrow(1, 0, 36),
                tokens.clone().narrow(1, 1, 36),
            );
            let loss = loss::next_token_loss(model.forward_in(input, &mut pass), target);
            let loss = losses.of(&pass.reports).add_to(loss) / passes as f64;
            sum.accumulate(&model, GradientsParams::from_grads(loss.backward(), &model));
        }
        hybridnorm_testing::gradients(&model, &sum.grads())
    };
    let whole = gradients(&device.clone().autodiff(), 2, 1);
    let recomputed = device.clone().autodiff().gradient_checkpointing();
    for (what, found) in [
        ("recomputed", gradients(&recomputed, 2, 1)),
        ("accumulated", gradients(&device.clone().autodiff(), 1, 2)),
    ] {
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            whole.keys().collect::<Vec<_>>()
        );
        for (path, exact) in &whole {
            let error = largest_difference(&found[path], exact) / largest(exact).max(1e-6);
            assert!(
                error < 1e-5,
                "{what}: {path} off by {error:e} of its largest value"
            );
        }
    }
}
