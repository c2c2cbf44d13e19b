//! Operations that compute more than they read and write, as a share of the speed of one matrix product.
//!
//! `cargo bench -p hybridnorm-benches --features flex --bench products [-- FILTER]`

use std::hint::black_box;

use burn::tensor::{Distribution, Int, Tensor, TensorData};
use criterion::{Criterion, Throughput};
use hybridnorm_kernels::{
    AttentionSpec, Groups, HeadSpec, attention, grouped_matmul, head_loss, project,
};

use crate::series::Series;

const SEQUENCES: usize = 2;
const SEQ: usize = 1024;
const TOKENS: usize = SEQUENCES * SEQ;
const WIDTH: usize = 512;
const HEADS: usize = 8;
const EXPERTS: usize = 16;
const VOCAB: usize = 4096;

/// Measures and prints them.
pub fn run(criterion: &mut Criterion) {
    let mut series = Series::new(criterion, "products", "GFLOP/s");
    let device = series.device();
    let learned = device.clone().autodiff();
    let random =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
    let tracked = |x: &Tensor<2>| Tensor::<2>::from_data(x.to_data(), &learned).require_grad();
    let flops = |numbers: usize| Throughput::Elements(2 * numbers as u64);

    let (x, weight) = (random([TOKENS, WIDTH]), random([WIDTH, WIDTH]));
    let product = TOKENS * WIDTH * WIDTH;
    series.measure("a matrix product", flops(product), || {
        black_box(project(x.clone(), weight.clone()));
    });
    let both = (tracked(&x), tracked(&weight));
    series.measure("with its gradients", flops(3 * product), || {
        let y = project(both.0.clone(), both.1.clone());
        black_box(y.sum().backward());
    });

    let groups = Groups::new([TOKENS / EXPERTS; EXPERTS]);
    let matrices = random([EXPERTS * WIDTH, WIDTH]).reshape([EXPERTS, WIDTH, WIDTH]);
    series.measure("16 experts", flops(product), || {
        black_box(grouped_matmul(x.clone(), matrices.clone(), &groups));
    });
    let matrices = Tensor::<3>::from_data(matrices.to_data(), &learned).require_grad();
    series.measure("16 experts and gradients", flops(3 * product), || {
        let y = grouped_matmul(both.0.clone(), matrices.clone(), &groups);
        black_box(y.sum().backward());
    });

    let spec = AttentionSpec {
        heads: HEADS,
        kv_heads: HEADS,
        scale: (WIDTH as f64 / HEADS as f64).powf(-0.5),
        softcap: None,
        window: None,
        products: None,
    };
    let shape = [SEQUENCES, 3 * HEADS, SEQ, WIDTH / HEADS];
    let qkv = random([TOKENS, 3 * WIDTH]).reshape(shape);
    // Half of all pairs of tokens, in each of two products.
    let pairs = TOKENS * SEQ * WIDTH;
    series.measure("causal attention", flops(pairs), || {
        black_box(attention(qkv.clone(), None, spec));
    });
    let qkv = Tensor::<4>::from_data(qkv.to_data(), &learned).require_grad();
    // Five more products: one of them computes the scores anew.
    let work = flops(pairs * 7 / 2);
    series.measure("causal attention and gradient", work, || {
        let y = attention(qkv.clone(), None, spec);
        black_box(y.sum().backward());
    });

    let head = tracked(&random([WIDTH, VOCAB]));
    let targets = Tensor::<1, Int>::from_data(TensorData::zeros::<i32, _>([TOKENS]), &device);
    let shares = Tensor::<1>::full([TOKENS], 1.0 / TOKENS as f64, &device);
    let spec = HeadSpec {
        scale: 1.0,
        softcap: None,
        rows: TOKENS / 4,
        products: None,
    };
    let work = flops(3 * TOKENS * WIDTH * VOCAB);
    series.measure("head, its loss and gradients", work, || {
        let (targets, shares) = (targets.clone().autodiff(), shares.clone().autodiff());
        let loss = head_loss(both.0.clone(), head.clone(), None, targets, shares, spec);
        black_box(loss.backward());
    });
    series.finish();
    criterion.final_summary();
}
