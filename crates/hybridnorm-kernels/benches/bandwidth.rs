//! Operations that read and write more than they compute, as a share of the speed of a copy.
//!
//! `cargo bench -p hybridnorm-kernels --features flex --bench bandwidth [-- DEVICE]`

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Int, Tensor};
use hybridnorm_kernels::{
    AdamWStep, Gate, QkvNorm, QkvSpec, adamw, cross_entropy, glu, qkv_norm_rope, rms_norm,
    square_sum,
};

const ROWS: usize = 4096;
const WIDTH: usize = 512;
const HEADS: usize = 8;
const ROUNDS: usize = 15;
const EPSILON: f64 = 1e-5;

fn main() {
    let name = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let device = hybridnorm_testing::open(name.as_deref().unwrap_or("flex"));
    let random =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device);
    let bytes = (4 * ROWS * WIDTH) as f64;
    println!(
        "{ROWS} rows of {WIDTH} numbers in f32, {:.0} MiB: median of {ROUNDS}",
        bytes / f64::from(1 << 20)
    );
    let (x, wide) = (random([ROWS, WIDTH]), random([ROWS, 2 * WIDTH]));
    let copy = 2.0 * bytes / seconds(device, || copied(&x));
    println!("{:32} {:7.1} GB/s", "copy", copy / 1e9);
    let tell = |name: &str, tensors: f64, work: &dyn Fn()| {
        let speed = tensors * bytes / seconds(device, work);
        let share = 100.0 * speed / copy;
        println!("{name:32} {:7.1} GB/s {share:5.0} % of a copy", speed / 1e9);
    };

    let scale = Tensor::<1>::ones([WIDTH], device);
    tell("RMSNorm", 2.0, &|| {
        black_box(rms_norm(x.clone(), scale.clone(), EPSILON));
    });
    let learned = device.clone().autodiff();
    let tracked = Tensor::<2>::from_data(x.to_data(), &learned).require_grad();
    let tracked_scale = Tensor::<1>::ones([WIDTH], &learned).require_grad();
    // Beside what the norm reads and writes: the sum reads its output, its gradient is written once.
    tell("RMSNorm, sum and gradients", 7.0, &|| {
        let y = rms_norm(tracked.clone(), tracked_scale.clone(), EPSILON);
        black_box(y.sum().backward());
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
    let angles = [(); 2].map(|()| random([ROWS, WIDTH / HEADS / 2]));
    let scales = [(); 3].map(|()| Tensor::<1>::ones([WIDTH / HEADS], device));
    tell("Q, K, V norms and rotation", 4.0, &|| {
        black_box(qkv_norm_rope(
            qkv.clone(),
            scales.clone(),
            angles.clone(),
            spec,
        ));
    });
    let tracked = Tensor::<2>::from_data(wide.to_data(), &learned).require_grad();
    tell("Q, K, V norms, sum and gradients", 14.0, &|| {
        let scales = scales.clone().map(|scale| scale.autodiff().require_grad());
        let angles = angles.clone().map(Tensor::autodiff);
        let y = qkv_norm_rope(tracked.clone().unsqueeze::<3>(), scales, angles, spec);
        black_box(y.sum().backward());
    });
    tell("SwiGLU", 3.0, &|| {
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

/// The median time of `work`, until the device has done it.
fn seconds(device: &Device, work: impl Fn()) -> f64 {
    let finish = || device.sync().expect("a device that works");
    let time = || {
        let start = Instant::now();
        work();
        finish();
        start.elapsed().as_secs_f64()
    };
    time();
    let mut times: Vec<f64> = (0..ROUNDS).map(|_| time()).collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}
