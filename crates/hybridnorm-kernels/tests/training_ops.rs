//! Each fused operation against plain ones in f64, values and every gradient, on every compiled-in device.

mod compare;
mod numbers;

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use compare::{ROUNDINGS, compare, flat, numbers};
use hybridnorm_kernels::{
    Gate, NormSpec, QkvNorm, QkvSpec, cross_entropy, gated, glu, norm, project, qkv_norm_rope,
    rms_norm, square_sum,
};
use hybridnorm_testing::{apply, every_device, values};

const EPSILON: f64 = 1e-5;

fn plain_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>) -> Tensor<D> {
    let rms = (x.clone().square().mean_dim(D - 1) + EPSILON).sqrt();
    x / rms * weight.unsqueeze()
}

fn plain_layer_norm<const D: usize>(x: Tensor<D>, weight: Tensor<1>) -> Tensor<D> {
    let mean = x.clone().mean_dim(D - 1);
    plain_norm(x - mean, weight)
}

#[apply(every_device!)]
fn rms_norm_equals_f64(
    #[case] device: &Device,
    #[values([1, 3], [3, 7], [129, 48], [65, 256])] shape: [usize; 2],
) {
    let [rows, width] = shape;
    let inputs = [numbers(rows * width, 1), numbers(width, 2)];
    let of = |x: &[Tensor<1>]| (x[0].clone().reshape([rows, width]), x[1].clone());
    compare(
        device,
        &inputs,
        |x| {
            let (x, weight) = of(&x);
            flat(rms_norm(x, weight, EPSILON))
        },
        |x| {
            let (x, weight) = of(&x);
            flat(plain_norm(x, weight))
        },
    );
}

/// With and without a shift, far from zero and around it.
#[apply(every_device!)]
fn norms_equal_f64(
    #[case] device: &Device,
    #[values([1, 3], [3, 7], [129, 48], [65, 256], [40, 1030])] shape: [usize; 2],
    #[values((false, true), (true, false), (true, true))] what: (bool, bool),
    #[values(0.0, 3.0)] far: f64,
) {
    let ([rows, width], (centred, biased)) = (shape, what);
    let spec = NormSpec {
        epsilon: EPSILON,
        centred,
    };
    let x = numbers(rows * width, 1).iter().map(|x| x + far).collect();
    let mut inputs = vec![x, numbers(width, 2)];
    inputs.extend(biased.then(|| numbers(width, 3)));
    compare(
        device,
        &inputs,
        |x| {
            let rows = x[0].clone().reshape([rows, width]);
            flat(norm(rows, x[1].clone(), x.get(2).cloned(), spec))
        },
        |x| {
            let (rows, weight) = (x[0].clone().reshape([rows, width]), x[1].clone());
            let y = match centred {
                true => plain_layer_norm(rows, weight),
                false => plain_norm(rows, weight),
            };
            flat(match x.get(2) {
                Some(bias) => y + bias.clone().unsqueeze(),
                None => y,
            })
        },
    );
}

/// Nothing is left of a row of equal numbers but the shift, however the mean is rounded.
#[apply(every_device!)]
fn a_constant_row_has_no_deviations(#[case] device: &Device, #[values(7, 48, 1000)] width: usize) {
    let x = Tensor::<2>::full([3, width], 1234.567, device);
    let ones = Tensor::<1>::ones([width], device);
    let spec = NormSpec {
        epsilon: EPSILON,
        centred: true,
    };
    let y = norm(x, ones.clone(), Some(ones * 0.5), spec);
    assert!(values(y).into_iter().all(|y| y == 0.5));
}

/// A view that is not contiguous gives what its copy gives.
#[apply(every_device!)]
fn views_are_read_as_they_are(#[case] device: &Device) {
    let of = |x: &[Tensor<1>]| x[0].clone().reshape([6, 40]).transpose().narrow(0, 3, 22);
    compare(
        device,
        &[numbers(240, 3), numbers(6, 4)],
        |x| flat(rms_norm(of(&x), x[1].clone(), EPSILON)),
        |x| flat(plain_norm(of(&x), x[1].clone())),
    );
    compare(
        device,
        &[numbers(240, 3)],
        |x| flat(glu(of(&x), Gate::Silu)),
        |x| flat(plain_glu(of(&x), Gate::Silu)),
    );
}

/// Products too small to be shared among cores and large enough, with weights as they are and turned.
#[apply(every_device!)]
fn projections_equal_f64(
    #[case] device: &Device,
    #[values([1, 1, 1], [5, 7, 3], [130, 48, 65], [257, 192, 160])] shape: [usize; 3],
    #[values(false, true)] turned: bool,
) {
    let [rows, d_in, d_out] = shape;
    let inputs = [numbers(rows * d_in, 15), numbers(d_in * d_out, 16)];
    let of = |x: &[Tensor<1>]| {
        let weight = match turned {
            true => x[1].clone().reshape([d_out, d_in]).transpose(),
            false => x[1].clone().reshape([d_in, d_out]),
        };
        (x[0].clone().reshape([1, rows, d_in]), weight)
    };
    compare(
        device,
        &inputs,
        |x| {
            let (x, weight) = of(&x);
            flat(project(x, weight))
        },
        |x| {
            let (x, weight) = of(&x);
            flat(x.matmul(weight.unsqueeze()))
        },
    );
}

#[apply(every_device!)]
fn squares_are_summed(#[case] device: &Device, #[values(1, 17, 70_001)] n: usize) {
    let x: Vec<f64> = numbers(n, 14)
        .iter()
        .map(|x| f64::from(*x as f32))
        .collect();
    let exact: f64 = x.iter().map(|x| x * x).sum();
    let tensor = Tensor::<1>::from_data(TensorData::new(x, [n]), (device, DType::F32));
    let found = values(square_sum(tensor))[0];
    let roundings = (found / exact - 1.0).abs() / f64::from(f32::EPSILON) * 2.0;
    assert!(roundings <= ROUNDINGS, "{roundings} roundings");
}

fn plain_glu<const D: usize>(h: Tensor<D>, gate: Gate) -> Tensor<D> {
    let half = h.dims()[D - 1] / 2;
    let value = h.clone().narrow(D - 1, 0, half);
    let open = h.narrow(D - 1, half, half);
    let open = match gate {
        Gate::Silu => activation::silu(open),
        Gate::GeluTanh => activation::gelu_approximate(open),
        Gate::Gelu => {
            let phi = ((open.clone() * std::f64::consts::FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
            open * phi
        }
        Gate::Relu => activation::relu(open),
    };
    open * value
}

/// Value and gate in one tensor, and in two. More than one number each: far below zero GELU's 1 + erf has lost its digits, in PyTorch
/// too, and what is left is nothing only beside others.
#[apply(every_device!)]
fn gated_units_equal_f64(
    #[case] device: &Device,
    #[values([2, 2], [5, 3], [129, 48])] shape: [usize; 2],
    #[values(1.0, 3.0)] size: f64,
    #[values(Gate::Silu, Gate::GeluTanh, Gate::Gelu, Gate::Relu)] gate: Gate,
    #[values(false, true)] apart: bool,
) {
    let [rows, width] = shape;
    let h = numbers(rows * 2 * width, 5)
        .iter()
        .map(|x| x * size)
        .collect();
    let of = |x: &[Tensor<1>]| x[0].clone().reshape([1, rows, 2 * width]);
    compare(
        device,
        &[h],
        |x| {
            let h = of(&x);
            flat(match apart {
                true => {
                    let part = |start| h.clone().narrow(2, start, width);
                    gated(part(0), part(width), gate)
                }
                false => glu(h, gate),
            })
        },
        |x| flat(plain_glu(of(&x), gate)),
    );
}

/// WGSL allows its exponential an error that grows with its argument; far out, only what is left of it counts.
#[apply(every_device!)]
fn a_wide_open_or_closed_gate_is_exact(#[case] device: &Device) {
    let h = Tensor::<2>::from_data([[3.0f32, 5e3], [3.0, -5e3], [-2.0, 0.0]], device);
    for gate in [Gate::Silu, Gate::GeluTanh, Gate::Gelu, Gate::Relu] {
        assert_eq!(values(glu(h.clone(), gate)), [15e3, 0.0, 0.0]);
    }
}

#[apply(every_device!)]
fn cross_entropy_equals_f64(
    #[case] device: &Device,
    #[values([1, 1], [3, 7], [129, 300])] shape: [usize; 2],
    #[values(1.0, 30.0)] size: f64,
) {
    let [rows, vocab] = shape;
    let logits = numbers(rows * vocab, 6).iter().map(|x| x * size).collect();
    let targets: Vec<i64> = (0..rows).map(|row| (row * 31 % vocab) as i64).collect();
    let of = |x: &[Tensor<1>]| {
        let logits = x[0].clone().reshape([rows, vocab]);
        let targets = TensorData::new(targets.clone(), [rows]);
        let targets = Tensor::<1, Int>::from_data(targets, &logits.device());
        (logits, targets)
    };
    compare(
        device,
        &[logits],
        |x| {
            let (logits, targets) = of(&x);
            flat(cross_entropy(logits, targets))
        },
        |x| {
            let (logits, targets) = of(&x);
            let max = logits.clone().detach().max_dim(1);
            let lse = (logits.clone() - max.clone()).exp().sum_dim(1).log() + max;
            let nll = lse.clone() - logits.gather(1, targets.reshape([rows, 1]));
            Tensor::cat(vec![flat(nll), flat(lse)], 0)
        },
    );
}

const HEAD: Option<QkvNorm> = Some(QkvNorm::PerHead);
const FULL: Option<QkvNorm> = Some(QkvNorm::FullWidth);

#[apply(every_device!)]
fn qkv_norms_and_rotation_equal_f64(
    #[case] device: &Device,
    #[values([1, 1, 1, 1, 4], [3, 7, 2, 1, 6], [2, 33, 4, 2, 32])] shape: [usize; 5],
    #[values(
        ([HEAD; 3], true),
        ([HEAD, HEAD, None], true),
        ([None; 3], true),
        ([HEAD; 3], false),
        ([FULL, FULL, None], true),
        ([FULL, HEAD, FULL], false)
    )]
    what: ([Option<QkvNorm>; 3], bool),
) {
    let (norms, rotary) = what;
    let [batch, seq, heads, kv_heads, head_dim] = shape;
    let all = heads + 2 * kv_heads;
    let spec = QkvSpec {
        heads,
        kv_heads,
        head_dim,
        norms,
        epsilon: EPSILON,
        rotary,
    };
    let half = head_dim / 2;
    let angles = numbers(seq * half, 8);
    let wide = |part: usize, heads: usize| match norms[part] {
        Some(QkvNorm::FullWidth) => heads * head_dim,
        _ => head_dim,
    };
    let inputs = [
        numbers(batch * seq * all * head_dim, 7),
        numbers(wide(0, heads), 9),
        numbers(wide(1, kv_heads), 10),
        numbers(wide(2, kv_heads), 11),
        angles.iter().map(|x| x.cos()).collect(),
        angles.iter().map(|x| x.sin()).collect(),
    ];
    let table = |x: &Tensor<1>| x.clone().detach().reshape([seq, half]);
    let constants = |x: Vec<Tensor<1>>| {
        let weights = [x[1].clone(), x[2].clone(), x[3].clone()];
        (x[0].clone(), weights, [table(&x[4]), table(&x[5])])
    };
    // What has no effect has no gradient, or one of zeros.
    let weights = |weights: [Tensor<1>; 3]| {
        let parts = weights.into_iter().zip(norms);
        parts.map(|(weight, norm)| match norm {
            Some(_) => weight,
            None => weight.detach(),
        })
    };
    compare(
        device,
        &inputs,
        |x| {
            let (qkv, all_weights, angles) = constants(x);
            let mut used = weights(all_weights);
            let used = [(); 3].map(|()| used.next().unwrap());
            let qkv = qkv.reshape([batch, seq, all * head_dim]);
            flat(qkv_norm_rope(qkv, used, angles, spec))
        },
        |x| {
            let (qkv, all_weights, [cos, sin]) = constants(x);
            let qkv = qkv.reshape([batch, seq, all, head_dim]);
            let ranges = [(0, heads), (heads, kv_heads), (heads + kv_heads, kv_heads)];
            let mut parts = Vec::new();
            for (part, ((start, n), weight)) in
                ranges.into_iter().zip(weights(all_weights)).enumerate()
            {
                let mut x = qkv.clone().narrow(2, start, n);
                x = match norms[part] {
                    Some(QkvNorm::PerHead) => plain_norm(x, weight),
                    Some(QkvNorm::FullWidth) => {
                        let (shape, rows) = (x.dims(), [batch, seq, n * head_dim]);
                        plain_norm(x.reshape(rows), weight).reshape(shape)
                    }
                    None => x,
                };
                let mut x = x.swap_dims(1, 2);
                if rotary && part < 2 {
                    let (cos, sin) = (cos.clone().unsqueeze(), sin.clone().unsqueeze());
                    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
                    let turned = a.clone() * cos.clone() - b.clone() * sin.clone();
                    x = Tensor::cat(vec![turned, b * cos + a * sin], 3);
                }
                parts.push(x);
            }
            flat(Tensor::cat(parts, 1))
        },
    );
}
