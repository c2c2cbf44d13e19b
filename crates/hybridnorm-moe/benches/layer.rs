//! A sparse layer forward and backward against the number of experts, against a dense layer of equal active width, and against a
//! loop over the experts in Burn's own operations.
//!
//! `cargo bench -p hybridnorm-moe --features flex --bench layer [-- DEVICE]`; `cargo xtask bench moe` measures whole training steps.

use std::time::Instant;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Distribution, Int, Tensor, activation};
use hybridnorm_core::init::Initializer;
use hybridnorm_core::{
    Activation, DenseFeedForward, DenseFeedForwardConfig, FeedForward, InitConfig, InitScheme, Pass,
};
use hybridnorm_moe::{SparseConfig, SparseFeedForward};

const TOKENS: usize = 2048;
const D_MODEL: usize = 256;
const D_FF: usize = 256;
const TOP_K: usize = 4;
const ROUNDS: usize = 7;

fn main() {
    let name = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let device = hybridnorm_testing::open(name.as_deref().unwrap_or("flex"))
        .clone()
        .autodiff();
    let init = Initializer::new(&InitConfig::default(), InitScheme::Normal, D_MODEL, 1)
        .expect("a valid initialisation");
    let x = Tensor::random(
        [1, TOKENS, D_MODEL],
        Distribution::Normal(0.0, 1.0),
        &device,
    );
    println!(
        "{TOKENS} tokens, d_model {D_MODEL}, d_ff {D_FF}, top-{TOP_K}: milliseconds forward and backward, median of {ROUNDS}"
    );
    let dense = DenseFeedForwardConfig {
        d_model: D_MODEL,
        d_ff: TOP_K * D_FF,
        activation: Activation::SwiGlu,
        bias: false,
    };
    let dense = dense.init(&init, &device).expect("a valid layer");
    println!(
        "dense of {} {:8.1}",
        TOP_K * D_FF,
        median(&device, || step_dense(&dense, &x))
    );
    for experts in [4, 16, 64, 256] {
        let config = SparseConfig::new(experts, TOP_K, D_FF);
        let layer = config.init(D_MODEL, &init, &device).expect("a valid layer");
        let grouped = median(&device, || step_sparse(&layer, &x));
        let routed = median(&device, || {
            let x = x.clone().reshape([TOKENS, D_MODEL]);
            let (_, assignment) = layer
                .router
                .forward::<()>(x.clone(), None, &mut Pass::causal());
            std::hint::black_box(assignment.upload(TOP_K, &device));
        });
        let looped = match experts {
            256 => "not run: minutes".to_owned(),
            _ => format!("{:8.1}", median(&device, || step_loop(&layer, &x))),
        };
        println!(
            "{experts:4} experts {grouped:8.1}, of which routing, its copy to the host included, {routed:6.1}; a loop over the experts {looped}"
        );
    }
}

fn median(device: &Device, mut step: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..=ROUNDS)
        .map(|_| {
            let start = Instant::now();
            step();
            device.sync().expect("the device works");
            start.elapsed().as_secs_f64() * 1e3
        })
        .skip(1)
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn step_dense(layer: &DenseFeedForward, x: &Tensor<3>) {
    let y = layer.forward(x.clone().require_grad(), &mut Pass::causal());
    let grads = y.sum().backward();
    std::hint::black_box(GradientsParams::from_grads(grads, layer));
}

fn step_sparse(layer: &SparseFeedForward, x: &Tensor<3>) {
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
