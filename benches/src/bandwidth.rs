//! Operations that read and write more than they compute, as a share of the speed of a copy.
//!
//! `cargo bench -p hybridnorm-benches --features flex --bench bandwidth [-- FILTER]`

use std::hint::black_box;

use burn::backend::Dispatch;
use burn::tensor::{Distribution, Int, Tensor};
use criterion::{Criterion, Throughput};
use hybridnorm_kernels::{
    AdamWStep, Gate, KernelOps, NormSpec, QkvNorm, QkvSpec, adamw, cross_entropy, glu,
    qkv_norm_rope, rms_norm, square_sum,
};

use crate::series::Series;

/// 24 MiB a tensor: more than caches hold, and less than what the C library takes from the system anew each time.
const ROWS: usize = 12 * 1024;
const WIDTH: usize = 512;
const HEADS: usize = 8;
const EPSILON: f64 = 1e-5;

/// Measures and prints them.
pub fn run(criterion: &mut Criterion) {
    let mut series = Series::new(criterion, "bandwidth", "GB/s");
    let device = &series.device();
    let random =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device);
    let (x, wide) = (random([ROWS, WIDTH]), random([ROWS / 2, 2 * WIDTH]));
    let mut tell = |name: &str, tensors: f64, work: &dyn Fn()| {
        let bytes = Throughput::Bytes((tensors * (4 * ROWS * WIDTH) as f64) as u64);
        series.measure(name, bytes, work);
    };
    tell("a copy", 2.0, &|| copied(&x));

    let scale = Tensor::<1>::ones([WIDTH], device);
    tell("RMSNorm", 2.0, &|| {
        black_box(rms_norm(x.clone(), scale.clone(), EPSILON));
    });
    let spec = NormSpec {
        epsilon: EPSILON,
        centred: false,
    };
    tell("RMSNorm, gradients", 3.0, &|| {
        let [x, dy] = [(); 2].map(|()| x.clone().into_dispatch());
        let scale = scale.clone().into_dispatch();
        black_box(Dispatch::norm_backward(x, scale, dy, false, spec));
    });
    let spec = QkvSpec {
        heads: HEADS,
        kv_heads: HEADS / 2,
        head_dim: WIDTH / HEADS,
        norms: [Some(QkvNorm::PerHead); 3],
        epsilon: EPSILON,
        rotary: true,
    };
    let qkv = wide.clone().unsqueeze::<3>();
    let angles = [(); 2].map(|()| random([ROWS / 2, WIDTH / HEADS / 2]));
    let scales = [(); 3].map(|()| Tensor::<1>::ones([WIDTH / HEADS], device));
    tell("Q, K, V norms and rotation", 2.0, &|| {
        black_box(qkv_norm_rope(
            qkv.clone(),
            scales.clone(),
            angles.clone(),
            spec,
        ));
    });
    let [cos, sin] = angles.map(Tensor::into_dispatch);
    let scale = scales[0].clone().into_dispatch();
    let dy = qkv.clone().reshape([1, 2 * HEADS, ROWS / 2, WIDTH / HEADS]);
    tell("Q, K, V norms, gradients", 3.0, &|| {
        let (qkv, dy) = (qkv.clone().into_dispatch(), dy.clone().into_dispatch());
        let [query, key, value] = [(); 3].map(|()| scale.clone());
        let (cos, sin) = (cos.clone(), sin.clone());
        let gradients =
            Dispatch::qkv_norm_rope_backward(qkv, query, key, value, cos, sin, dy, spec);
        black_box(gradients);
    });
    tell("SwiGLU", 1.5, &|| {
        black_box(glu(wide.clone(), Gate::Silu));
    });
    let targets = Tensor::<1, Int>::zeros([ROWS], device);
    tell("cross-entropy", 1.0, &|| {
        black_box(cross_entropy(x.clone(), targets.clone()));
    });
    tell("sum of squares", 1.0, &|| {
        black_box(square_sum(x.clone()));
    });
    let step = AdamWStep {
        scale: 1.0,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        keep: 1.0,
        rate: 1e-3,
        root_correction: 1.0,
    };
    // As in training, where nothing else holds what is overwritten.
    let state = std::cell::RefCell::new(Some((
        random([ROWS, WIDTH]),
        [x.zeros_like(), x.ones_like()],
    )));
    tell("AdamW", 7.0, &|| {
        if let Some((weight, moments)) = state.take() {
            state.replace(Some(adamw(weight, x.clone(), moments, step)));
        }
    });
    series.finish();
    criterion.final_summary();
}

/// A copy by all cores on `flex`, by the device elsewhere.
fn copied(x: &Tensor<2>) {
    #[cfg(feature = "flex")]
    if let burn::backend::DispatchDevice::Flex(_) = x.device().as_dispatch() {
        use rayon::prelude::*;
        thread_local! {
            static SOURCE: Vec<f32> = vec![1.0; ROWS * WIDTH];
        }
        SOURCE.with(|source| {
            let mut to: Vec<f32> = Vec::with_capacity(source.len());
            let room = to.spare_capacity_mut();
            let parts = room.par_chunks_mut(1 << 16);
            parts
                .zip(source.par_chunks(1 << 16))
                .for_each(|(to, from)| {
                    to.write_copy_of_slice(from);
                });
            black_box(to.spare_capacity_mut().len());
        });
        return;
    }
    black_box(x.clone().mul_scalar(1.0));
}
