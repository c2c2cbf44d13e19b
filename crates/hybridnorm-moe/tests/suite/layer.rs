//! The layer's values and gradients against the written-out one.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use hybridnorm_core::{Activation, FeedForward, InitConfig, InitScheme, Pass, init::Initializer};
use hybridnorm_moe::{RouterConfig, Routing, ScoreFunction, SparseConfig, SparseFeedForward};
use hybridnorm_testing::{
    apply, every_device, gradients, largest, largest_difference, parameters, values,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::exact::{Exact, Layer};

/// Roundings of a tensor's largest value that sums of at most a few hundred terms in f32 may be off.
const ROUNDINGS: f64 = 64.0;

pub const D_MODEL: usize = 12;

pub fn layer(config: &SparseConfig, device: &Device) -> SparseFeedForward {
    let init = InitConfig {
        std: Some(0.3),
        ..InitConfig::default()
    };
    let init = Initializer::new(&init, InitScheme::Normal, D_MODEL, 1).unwrap();
    config.init(D_MODEL, &init, device).unwrap()
}

pub fn chosen(routing: &Routing) -> Vec<i64> {
    routing.chosen.clone().into_data().iter::<i64>().collect()
}

/// What a device computed.
pub struct Found {
    pub routing: Routing,
}

/// Runs the layer forward and backward on `x` and holds all of it to the written-out layer. `kept` says which copies are computed.
#[track_caller]
pub fn check(
    config: &SparseConfig,
    layer: &SparseFeedForward,
    x: Tensor<3>,
    kept: Option<&[f64]>,
) -> Found {
    let device = x.device();
    let shape = x.dims();
    let x = x.require_grad();
    let mut pass = Pass::causal();
    let output = layer.forward(x.clone(), &mut pass);
    assert_eq!(output.dims(), shape);
    let seen = numbers(shape, 2, &device);
    let grads = (output.clone() * seen.clone()).sum().backward();
    let dx = values(x.grad(&grads).expect("a gradient of the input"));
    let grads = gradients(layer, &GradientsParams::from_grads(grads, layer));
    let [routing]: [Routing; 1] = pass.reports.try_into().expect("one report");
    let all = vec![1.0; routing.tokens() * routing.top_k()];
    let parameters = parameters(layer);
    let exact = Layer {
        router: &config.router,
        d_model: D_MODEL,
        d_ff: config.d_ff,
        activation: config.activation,
        parameters: &parameters,
        chosen: &chosen(&routing),
        kept: kept.unwrap_or(&all),
    };
    let Exact {
        output: y,
        weights,
        dx: dx_exact,
        gradients,
    } = exact.run(&values(x), &values(seen));
    let output = values(output);
    close(&values(routing.weights.clone()), &weights, "expert weights");
    close(&output, &y, "output");
    close(&dx, &dx_exact, "gradient of the input");
    for (path, exact) in &gradients {
        // A parameter that nothing depends on may have no gradient at all.
        let found = grads
            .get(path)
            .cloned()
            .unwrap_or_else(|| vec![0.0; exact.len()]);
        close(&found, exact, &format!("gradient of {path}"));
    }
    Found { routing }
}

#[track_caller]
fn close(found: &[f64], exact: &[f64], what: &str) {
    let one = f64::from(f32::EPSILON) / 2.0 * largest(exact).max(1e-3);
    let error = largest_difference(found, exact) / one;
    assert!(error < ROUNDINGS, "{what}: off by {error:.0} roundings");
}

/// Roughly normal numbers, the same in every run and on every device.
pub fn numbers<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal()).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub fn input(batch: usize, seq: usize, device: &Device) -> Tensor<3> {
    numbers([batch, seq, D_MODEL], 1, device)
}

#[apply(every_device!)]
fn every_router_equals_the_written_out_layer(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let plain = SparseConfig::new(8, 2, 10);
    let router = |router: RouterConfig| SparseConfig {
        router,
        ..plain.clone()
    };
    let base = || plain.router.clone();
    let of = |activation| SparseConfig {
        activation,
        ..plain.clone()
    };
    let configs = [
        plain.clone(),
        router(RouterConfig {
            renormalize: true,
            top_k: 3,
            n_experts: 5,
            ..base()
        }),
        router(RouterConfig {
            score: ScoreFunction::Sigmoid,
            ..base()
        }),
        router(RouterConfig {
            score: ScoreFunction::Sigmoid,
            renormalize: true,
            ..base()
        }),
        router(RouterConfig {
            bias_update: Some(0.1),
            top_k: 1,
            ..base()
        }),
        of(Activation::GeGlu),
        of(Activation::GeGluExact),
        of(Activation::ReGlu),
    ];
    for config in configs {
        let layer = layer(&config, &device);
        for (batch, seq) in [(2, 9), (1, 1), (3, 48)] {
            let Found { routing } = check(&config, &layer, input(batch, seq, &device), None);
            assert!(routing.error.is_none() && routing.check().is_ok());
            let mut load = vec![0; config.router.n_experts];
            chosen(&routing)
                .iter()
                .for_each(|expert| load[*expert as usize] += 1);
            assert_eq!((routing.load, routing.dropped), (load, 0));
        }
    }
}

#[test]
fn experts_without_a_gate_are_refused() {
    for activation in [Activation::Gelu, Activation::Relu] {
        let config = SparseConfig {
            activation,
            ..SparseConfig::new(4, 2, 6)
        };
        let error = config.validate().unwrap_err();
        assert_eq!(
            (error.field.as_str(), error.value.as_str()),
            ("sparse.activation", activation.to_string().as_str())
        );
        assert!(error.allowed.contains("re-glu"), "{error}");
    }
}

/// The chosen are those with the largest scores, best first.
#[apply(every_device!)]
fn the_best_experts_are_chosen(#[case] device: &Device) {
    let config = SparseConfig::new(16, 4, 6);
    let mut pass = Pass::causal();
    layer(&config, device).forward(input(2, 30, device), &mut pass);
    let routing = &pass.reports[0];
    let scores = values(routing.logits.clone());
    for (row, chosen) in scores.chunks(16).zip(chosen(routing).chunks(4)) {
        let mut columns: Vec<i64> = (0..16).collect();
        columns.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]));
        assert_eq!(chosen, &columns[..4]);
    }
}

#[apply(every_device!)]
fn a_shared_expert_is_added(#[case] device: &Device) {
    let with = SparseConfig {
        shared_d_ff: Some(7),
        ..SparseConfig::new(4, 2, 6)
    };
    let x = input(2, 5, device);
    let with = layer(&with, device);
    let y = values(with.forward(x.clone(), &mut Pass::causal()));
    let shared = with.shared.clone().expect("a shared expert");
    let mut without = with;
    without.shared = None;
    let sparse = without.forward(x.clone(), &mut Pass::causal());
    let sum = values(sparse + shared.forward(x, &mut Pass::causal()));
    assert_eq!(y, sum);
}

/// Jitter needs a pass with noise, and the noise is a function of its seed and the layer.
#[apply(every_device!)]
fn jitter_is_drawn_from_the_seed_of_the_pass(#[case] device: &Device) {
    let mut config = SparseConfig::new(4, 2, 6);
    config.router.jitter = Some(0.1);
    let layer = layer(&config, device);
    let x = input(2, 5, device);
    let logits = |pass: Pass<Routing>| {
        let mut pass = pass;
        layer.forward(x.clone(), &mut pass);
        values(pass.reports[0].logits.clone())
    };
    let plain = logits(Pass::causal());
    assert_eq!(plain, logits(Pass::causal()));
    let noisy = logits(Pass::causal().with_noise(1));
    assert_eq!(noisy, logits(Pass::causal().with_noise(1)));
    assert_ne!(noisy, logits(Pass::causal().with_noise(2)));
    let difference = largest_difference(&plain, &noisy);
    assert!(
        difference > 0.0 && difference < 0.2 * D_MODEL as f64,
        "{difference}"
    );
}

/// Two runs are the same to the bit, forward and backward.
#[apply(every_device!)]
fn two_runs_are_bit_identical(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig::new(8, 3, 10);
    let layer = layer(&config, &device);
    let x = input(3, 40, &device);
    let run = || {
        let y = layer.forward(x.clone(), &mut Pass::causal());
        let grads = y.clone().powi_scalar(2).sum().backward();
        (
            values(y),
            gradients(&layer, &GradientsParams::from_grads(grads, &layer)),
        )
    };
    assert_eq!(run(), run());
}
