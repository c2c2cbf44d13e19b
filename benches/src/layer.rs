//! A sparse layer forward and backward against the number of experts, against a dense layer of equal active width, and against a
//! loop over the experts in Burn's own operations: 2,048 tokens, on the best device compiled in.
//!
//! `cargo bench -p hybridnorm-benches --features flex --bench layer [-- FILTER]`; `cargo xtask bench moe` measures whole training steps.

use burn::optim::GradientsParams;
use burn::tensor::{Distribution, Int, Tensor, activation};
use criterion::{Criterion, Throughput};
use hybridnorm_core::init::Initializer;
use hybridnorm_core::{
    Activation, DenseFeedForwardConfig, FeedForward, InitConfig, InitScheme, Pass,
};
use hybridnorm_moe::{SparseConfig, SparseFeedForward};

const TOKENS: usize = 2048;
const D_MODEL: usize = 256;
const D_FF: usize = 256;
const TOP_K: usize = 4;

/// Measures and prints them.
pub fn run(criterion: &mut Criterion) {
    let device = hybridnorm_testing::any_device().autodiff();
    let init = Initializer::new(&InitConfig::default(), InitScheme::Normal, D_MODEL, 1)
        .expect("a valid initialisation");
    let shape = [1, TOKENS, D_MODEL];
    let x = Tensor::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let mut group = criterion.benchmark_group("layer");
    group.sample_size(10);
    group.throughput(Throughput::Elements(TOKENS as u64));
    let mut measure = |name: String, step: &dyn Fn()| {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                step();
                device.sync().expect("a device that works");
            });
        });
    };
    let dense = DenseFeedForwardConfig {
        d_model: D_MODEL,
        d_ff: TOP_K * D_FF,
        activation: Activation::SwiGlu,
        bias: false,
    };
    let dense = dense.init(&init, &device).expect("a valid layer");
    measure("dense, as wide".to_owned(), &|| step(&dense, &x));
    for experts in [4, 16, 64, 256] {
        let config = SparseConfig::new(experts, TOP_K, D_FF);
        let layer = config.init(D_MODEL, &init, &device).expect("a valid layer");
        measure(format!("{experts} experts"), &|| step(&layer, &x));
        // Its copy to the host included.
        measure(format!("{experts} experts, routing alone"), &|| {
            let x = x.clone().reshape([TOKENS, D_MODEL]);
            let mut pass = Pass::causal();
            let (_, assignment) = layer.router.forward::<()>(x, None, &mut pass);
            std::hint::black_box(assignment.upload(TOP_K, &device));
        });
        // With more of them it takes minutes.
        if experts <= 64 {
            measure(format!("{experts} experts, a loop over them"), &|| {
                step_loop(&layer, &x);
            });
        }
    }
    group.finish();
    criterion.final_summary();
}

fn step<F: FeedForward>(layer: &F, x: &Tensor<3>) {
    let y = layer.forward(x.clone().require_grad(), &mut Pass::causal());
    let grads = y.sum().backward();
    std::hint::black_box(GradientsParams::from_grads(grads, layer));
}

/// As Hugging Face's modules do it: for each expert, gather its tokens, multiply, add back.
fn step_loop(layer: &SparseFeedForward, x: &Tensor<3>) {
    let x = x.clone().require_grad().reshape([TOKENS, D_MODEL]);
    let (routing, assignment) = layer
        .router
        .forward::<()>(x.clone(), None, &mut Pass::causal());
    let weights = routing.weights.reshape([TOKENS * TOP_K]);
    let mut y = Tensor::<2>::zeros_like(&x);
    let mut start = 0;
    for (expert, size) in assignment
        .sizes
        .iter()
        .enumerate()
        .filter(|(_, size)| **size > 0)
    {
        let copies: Vec<i64> = assignment.order[start..start + size]
            .iter()
            .map(|copy| i64::from(*copy))
            .collect();
        start += size;
        let tokens: Vec<i64> = copies.iter().map(|copy| copy / TOP_K as i64).collect();
        let copies = Tensor::<1, Int>::from_ints(copies.as_slice(), &x.device());
        let tokens = Tensor::<1, Int>::from_ints(tokens.as_slice(), &x.device());
        let matrix = |w: Tensor<3>| {
            let [_, d_in, d_out] = w.dims();
            w.narrow(0, expert, 1).reshape([d_in, d_out])
        };
        let rows = x.clone().select(0, tokens.clone());
        let gate = rows.clone().matmul(matrix(layer.experts.gate.val()));
        let up = rows.matmul(matrix(layer.experts.up.val()));
        let out = (activation::silu(gate) * up).matmul(matrix(layer.experts.down.val()));
        let out = out * weights.clone().select(0, copies).unsqueeze_dim(1);
        y = y.select_assign(0, tokens, out, burn::tensor::IndexingUpdateOp::Add);
    }
    let grads = y.sum().backward();
    std::hint::black_box(GradientsParams::from_grads(grads, layer));
}
