//! A fused operation against a plain one in f64.

use burn::tensor::{DType, Device, Tensor, TensorData};
use hybridnorm_testing::{largest, largest_difference, open, values};

use crate::numbers::numbers as units;

/// Errors allowed, in roundings of f32 of the largest value of a tensor.
pub const ROUNDINGS: f64 = 16.0;

/// Numbers from −2 to 2.
pub fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let units = units(n, seed);
    units.into_iter().map(|x| 2.0 * x).collect()
}

/// All numbers of `x`, one after the other.
#[allow(dead_code)] // Not every file of tests needs it.
pub fn flat<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    let n = x.dims().iter().product::<usize>();
    x.reshape([n])
}

/// What `f` makes of flat inputs, and the gradient of each in a sum that weighs every output differently.
pub fn run(
    inputs: &[Vec<f64>],
    dtype: DType,
    device: &Device,
    f: impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
) -> Vec<Vec<f64>> {
    let device = device.clone().autodiff();
    let tensor = |values: &Vec<f64>| {
        let data = TensorData::new(values.clone(), [values.len()]).convert_dtype(dtype);
        Tensor::<1>::from_data(data, (&device, dtype))
    };
    let inputs: Vec<_> = inputs.iter().map(|x| tensor(x).require_grad()).collect();
    let out = f(inputs.clone());
    let weights: Vec<f64> = (1..=out.dims()[0]).map(|n| (n as f64).sin()).collect();
    let gradients = (out.clone() * tensor(&weights)).sum().backward();
    let gradients = inputs.iter().map(|x| match x.grad(&gradients) {
        Some(gradient) => values(gradient),
        None => Vec::new(),
    });
    let gradients: Vec<_> = gradients.collect();
    [vec![values(out)], gradients].concat()
}

/// `fused` on `device` in f32 against `plain` in f64.
#[allow(dead_code)] // Not every file of tests needs it.
#[track_caller]
pub fn compare(
    device: &Device,
    inputs: &[Vec<f64>],
    fused: impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
    plain: impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
) {
    compare_in(f64::from(f32::EPSILON) / 2.0, device, inputs, fused, plain);
}

/// As [`compare`], where the largest relative error of a rounding is `rounding`.
#[track_caller]
pub fn compare_in(
    rounding: f64,
    device: &Device,
    inputs: &[Vec<f64>],
    fused: impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
    plain: impl Fn(Vec<Tensor<1>>) -> Tensor<1>,
) {
    // Rounded to f32 first: both get the same numbers.
    let inputs: Vec<Vec<f64>> = inputs
        .iter()
        .map(|x| x.iter().map(|x| f64::from(*x as f32)).collect())
        .collect();
    let found = run(&inputs, DType::F32, device, &fused);
    let exact = run(&inputs, DType::F64, open("flex"), plain);
    assert_eq!(
        found,
        run(&inputs, DType::F32, device, fused),
        "two runs differ"
    );
    for (at, (found, exact)) in found.iter().zip(&exact).enumerate() {
        if exact.iter().all(|x| *x == 0.0) {
            assert!(found.iter().all(|x| *x == 0.0), "a gradient of a constant");
            continue;
        }
        let unit = largest(exact) * rounding;
        let error = largest_difference(found, exact) / unit;
        let what = match at {
            0 => "output".to_string(),
            n => format!("gradient of input {}", n - 1),
        };
        assert!(error <= ROUNDINGS, "{what}: {error} roundings");
    }
}
