//! AdamW against its formula in f64, on every compiled-in device.

use burn::tensor::{Device, Tensor, TensorData};
use hybridnorm_kernels::{AdamWStep, adamw};
use hybridnorm_testing::{apply, every_device, largest, largest_difference, values};

const N: usize = 3 * 20_011; // more than one block, and no round number

fn tensor(values: &[f64], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [3, N / 3]), device)
}

fn step(t: i32) -> AdamWStep {
    let (lr, beta1, beta2) = (3e-3f64, 0.9f64, 0.95f64);
    AdamWStep {
        scale: 0.5,
        beta1,
        beta2,
        epsilon: 1e-8,
        keep: 1.0 - lr * 0.1,
        rate: lr / (1.0 - beta1.powi(t)),
        root_correction: (1.0 - beta2.powi(t)).sqrt(),
    }
}

/// Three steps; the moments start at zero.
#[apply(every_device!)]
fn three_steps_are_the_formula(#[case] device: &Device) {
    let wave = |i: usize, k: f64| (i as f64 * k).sin();
    let mut p: Vec<f64> = (0..N).map(|i| wave(i, 0.37)).collect();
    let (mut m, mut v) = (vec![0.0; N], vec![0.0; N]);
    let mut weight = tensor(&p, device);
    let mut moments = [tensor(&m, device), tensor(&v, device)];
    for t in 1..=3 {
        let g: Vec<f64> = (0..N).map(|i| wave(i, 0.11 * f64::from(t)) + 1.5).collect();
        let s = step(t);
        for i in 0..N {
            let g = g[i] * s.scale;
            m[i] = m[i] * s.beta1 + g * (1.0 - s.beta1);
            v[i] = v[i] * s.beta2 + g * g * (1.0 - s.beta2);
            p[i] = p[i] * s.keep - s.rate * m[i] / (v[i].sqrt() / s.root_correction + s.epsilon);
        }
        (weight, moments) = adamw(weight, tensor(&g, device), moments, s);
    }
    let [first, second] = moments;
    for (found, exact) in [(weight, p), (first, m), (second, v)] {
        let error = largest_difference(&values(found), &exact) / largest(&exact);
        assert!(error < 1e-6, "off by {error:e} of the largest value");
    }
}

/// A weight that is shared, or a view, is not changed under those who hold it.
#[apply(every_device!)]
fn what_others_hold_is_left_alone(#[case] device: &Device) {
    let numbers: Vec<f64> = (0..N).map(|i| (i as f64 * 0.7).cos()).collect();
    let held = tensor(&numbers, device);
    let before = values(held.clone());
    let [ones, zeros] = [Tensor::ones_like(&held), Tensor::zeros_like(&held)];
    let state = || [zeros.clone(), zeros.clone()];
    let (plain, _) = adamw(held.clone(), ones.clone(), state(), step(1));
    assert_eq!(values(held.clone()), before);
    assert_eq!(values(zeros.clone()), vec![0.0; N]);
    let view = held.clone().transpose().mul_scalar(1.0).transpose();
    let (from_view, _) = adamw(view, ones, state(), step(1));
    assert_eq!(values(from_view), values(plain));
}
