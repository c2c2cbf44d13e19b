//! Muon against torch.optim.Muon, and against closed forms.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use hybridnorm_testing::{apply, every_device, largest_difference, values};
use hybridnorm_train::recipe::{
    AdamWConfig, MuonConfig, MuonScale, Optimizer, OptimizerConfig, OptimizerName, orthogonalize,
    params,
};
use serde::Deserialize;

/// Unit roundoff of f32.
const ROUNDOFF: f64 = 1.0 / (1u64 << 24) as f64;
/// What five rounds multiply an error in the smallest singular values with: the slope of the quintic at 0, five times over.
const SLOPE: f64 = 3.4445 * 3.4445 * 3.4445 * 3.4445 * 3.4445;

/// `muon.json`, which `muon.py` writes.
#[derive(Deserialize)]
struct Reference {
    lr: f64,
    weight_decay: f64,
    momentum: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    inputs: usize,
    outputs: usize,
    scale: MuonScale,
    nesterov: bool,
    start: Vec<f64>,
    grads: Vec<Vec<f64>>,
    /// The weights after each step.
    exact: Vec<Vec<f64>>,
}

/// One matrix.
#[derive(Module, Debug)]
struct Bag<const D: usize> {
    matrix: Param<Tensor<D>>,
}

impl<const D: usize> Bag<D> {
    fn new(numbers: &[f64], shape: [usize; D], device: &Device) -> Self {
        let matrix = tensor(numbers, shape, &device.clone().autodiff());
        let matrix = Param::from_tensor(matrix.require_grad());
        Self { matrix }
    }

    fn numbers(&self) -> Vec<f64> {
        values(self.matrix.val().inner())
    }

    /// One step of Muon per gradient.
    fn trained(mut self, muon: MuonConfig, grads: &[Vec<f64>], device: &Device) -> Vec<Vec<f64>> {
        let mut optimizer = Optimizer::new(with(muon, 0.1), &self);
        let steps = grads.iter().map(|grad| {
            let mut all = GradientsParams::new();
            let shape = self.matrix.dims();
            all.register(self.matrix.id, tensor(grad, shape, device));
            self = optimizer.step(self.clone(), all, 0.05, 1.0);
            self.numbers()
        });
        steps.collect()
    }
}

fn tensor<const D: usize>(numbers: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    let numbers: Vec<f32> = numbers.iter().map(|x| *x as f32).collect();
    Tensor::from_data(TensorData::new(numbers, shape), device)
}

fn with(muon: MuonConfig, weight_decay: f64) -> OptimizerConfig {
    OptimizerConfig {
        name: OptimizerName::Muon,
        adamw: AdamWConfig {
            weight_decay,
            ..AdamWConfig::default()
        },
        muon: Some(muon),
        clip_warmup: None,
    }
}

/// Numbers without a pattern that rank could be lost to.
fn noise(n: usize, seed: u32) -> Vec<f64> {
    let mut state = seed;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 23) - 1.0
    };
    (0..n).map(next).collect()
}

#[apply(every_device!)]
fn steps_are_those_of_torch(#[case] device: &Device) {
    let reference: Reference = serde_json::from_str(include_str!("muon.json")).unwrap();
    assert_eq!((reference.lr, reference.weight_decay), (0.05, 0.1));
    for case in &reference.cases {
        let muon = MuonConfig {
            momentum: reference.momentum,
            nesterov: case.nesterov,
            scale: case.scale,
            ..MuonConfig::default()
        };
        let shape = [case.inputs, case.outputs];
        let bag = Bag::new(&case.start, shape, device);
        let found = bag.trained(muon, &case.grads, device);
        // A step is the rate times an orthogonal matrix, whose elements are off by a rounding times the slope.
        let rate = reference.lr * case.scale.factor(case.inputs, case.outputs);
        for (step, (found, exact)) in found.iter().zip(&case.exact).enumerate() {
            let bound = (step + 1) as f64 * rate * SLOPE * ROUNDOFF;
            let off = largest_difference(found, exact);
            assert!(
                off <= bound,
                "{shape:?} {} step {step}: {off:e} > {bound:e}",
                case.scale
            );
        }
    }
}

/// By its author a matrix with more outputs than inputs takes the larger step; `Linear` stores `[inputs, outputs]`.
#[test]
fn outputs_over_inputs_is_the_aspect_ratio() {
    assert_eq!(MuonScale::Spectral.factor(6, 24), 2.0);
    assert_eq!(MuonScale::Spectral.factor(24, 6), 1.0);
    assert_eq!(MuonScale::RmsMatch.factor(25, 100), 2.0);
    assert_eq!(MuonScale::RmsMatch.factor(100, 25), 2.0);
}

/// Rows of the Walsh matrix of order 8 over √8 are orthonormal, so that H·diag(s)·Hᵀ has the singular values s, and five
/// rounds bring each of them, over their norm, to five rounds of the quintic.
#[apply(every_device!)]
fn singular_values_come_near_one(#[case] device: &Device) {
    const N: usize = 8;
    let walsh = |i: usize, j: usize| match (i & j).count_ones() % 2 {
        0 => (1.0 / N as f64).sqrt(),
        _ => -(1.0 / N as f64).sqrt(),
    };
    // Left and right singular vectors differ: the right ones are the left ones, turned by one.
    let compose = |s: &[f64; N]| -> Vec<f64> {
        let element = |i, j| {
            (0..N)
                .map(|k| walsh(i, k) * s[k] * walsh(j, (k + 1) % N))
                .sum()
        };
        (0..N * N).map(|at| element(at / N, at % N)).collect()
    };
    let singular = [[8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625], [3.0; N]];
    let both: Vec<f64> = singular.iter().flat_map(compose).collect();
    let found = values(orthogonalize(tensor(&both, [2, N, N], device), 5));
    let mut expected = Vec::new();
    for s in singular {
        let norm = s.iter().map(|s| s * s).sum::<f64>().sqrt();
        let ends = s.map(|s| {
            (0..5).fold(s / norm, |x, _| {
                3.4445 * x - 4.7750 * x.powi(3) + 2.0315 * x.powi(5)
            })
        });
        assert!(
            ends.iter().all(|end| (0.68..1.21).contains(end)),
            "{ends:?}"
        );
        expected.extend(compose(&ends));
    }
    let off = largest_difference(&found, &expected);
    assert!(off <= SLOPE * ROUNDOFF, "{off:e}");
}

/// An expert without a token has no gradient, and no direction to step in.
#[apply(every_device!)]
fn zero_stays_zero(#[case] device: &Device) {
    let zero = orthogonalize(Tensor::zeros([1, 3, 5], device), 5);
    assert_eq!(values(zero), vec![0.0; 15]);
}

#[apply(every_device!)]
fn each_expert_is_a_matrix_of_its_own(#[case] device: &Device) {
    let (shape, size) = ([3, 4, 6], 4 * 6);
    let (start, grads) = (
        noise(3 * size, 1),
        vec![noise(3 * size, 2), noise(3 * size, 3)],
    );
    let together = Bag::new(&start, shape, device);
    let together = together.trained(MuonConfig::default(), &grads, device);
    for expert in 0..3 {
        let own = |all: &[f64]| all[expert * size..][..size].to_vec();
        let grads: Vec<Vec<f64>> = grads.iter().map(|grad| own(grad)).collect();
        let alone = Bag::new(&own(&start), [4, 6], device);
        let alone = alone.trained(MuonConfig::default(), &grads, device);
        for (together, alone) in together.iter().zip(&alone) {
            let off = largest_difference(&own(together), alone);
            assert!(off <= 2.0 * SLOPE * ROUNDOFF, "expert {expert}: {off:e}");
        }
    }
}

/// A layer in which query, key and value are one product: 4 + 2 + 2 columns, as the output's four inputs tell.
#[derive(Module, Debug)]
struct Fused {
    qkv: Linear,
    output: Linear,
}

#[apply(every_device!)]
fn query_key_and_value_are_matrices_of_their_own(#[case] device: &Device) {
    let linear = |i, o| LinearConfig::new(i, o).with_bias(false);
    let device = &device.clone().autodiff();
    let fused = Fused {
        qkv: linear(5, 8).init(device),
        output: linear(4, 5).init(device),
    };
    let (start, grad) = (values(fused.qkv.weight.val().inner()), noise(5 * 8, 7));
    let inner = &device.clone().inner();
    let mut all = GradientsParams::new();
    all.register(fused.qkv.weight.id, tensor(&grad, [5, 8], inner));
    let config = with(MuonConfig::default(), 0.1);
    let mut optimizer = Optimizer::new(config, &fused);
    let found = values(
        optimizer
            .step(fused, all, 0.05, 1.0)
            .qkv
            .weight
            .val()
            .inner(),
    );
    for (first, width) in [(0, 4), (4, 2), (6, 2)] {
        let columns = |all: &[f64]| -> Vec<f64> {
            let rows = all.chunks(8).flat_map(|row| &row[first..first + width]);
            rows.copied().collect()
        };
        let alone = Bag::new(&columns(&start), [5, width], inner);
        let alone = alone.trained(MuonConfig::default(), &[columns(&grad)], inner);
        let off = largest_difference(&columns(&found), &alone[0]);
        assert!(off <= SLOPE * ROUNDOFF, "columns from {first}: {off:e}");
    }
}

#[apply(every_device!)]
fn the_blocks_matrices_are_muons_and_the_rest_is_adamws(#[case] device: &Device) {
    use hybridnorm_core::DecoderConfig;
    use hybridnorm_moe::{ModelConfig, SparseConfig, SparseLayers};
    let config = ModelConfig {
        decoder: DecoderConfig {
            tied: false,
            ..DecoderConfig::new(32, 16, 2, 2)
        },
        sparse: Some(SparseConfig {
            layers: SparseLayers::Only(vec![1]),
            ..SparseConfig::new(4, 2, 12)
        }),
    };
    let device = &device.clone().autodiff();
    let model = config.init(device).unwrap();
    let all = params(&model);
    let tokens = Tensor::from_data([[1, 2, 3, 4]], device);
    let loss = model.forward(tokens).square().mean();
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    let mut optimizer = Optimizer::new(with(MuonConfig::default(), 0.0), &model);
    optimizer.step(model, grads, 0.01, 1.0);
    let moments = optimizer.moments();
    let mut muons = 0;
    for param in &all {
        let block = param.path.starts_with("blocks.");
        let matrix = block && param.shape.len() > 1;
        muons += usize::from(matrix);
        let has = |of: &GradientsParams| match param.shape.len() {
            1 => of.get::<1>(param.id).is_some(),
            2 => of.get::<2>(param.id).is_some(),
            _ => of.get::<3>(param.id).is_some(),
        };
        let found = [&moments.first, &moments.second, &moments.momentum].map(has);
        assert_eq!(found, [!matrix, !matrix, matrix], "{}", param.path);
    }
    // Attention: 2 in each of two blocks; feed-forward: 2 in one, a router and 3 stacks of experts in the other.
    assert_eq!(muons, 2 * 2 + 2 + 4);
}
