//! A step of AdamW, and the sum of squares that its clipping needs.

use burn::tensor::DType;
use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::rows::{UNITS, address, dense, empty, owned, row_sum, total};
use crate::adamw::AdamWStep;

/// Cubes that add up squares, each its own share.
const SHARES: usize = 1024;

/// Each unit has one number of the parameter.
#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn step_kernel(
    weight: &mut [f32],
    grad: &[f32],
    first: &mut [f32],
    second: &mut [f32],
    numbers: usize,
    scale: f32,
    beta1: f32,
    beta2: f32,
    rest1: f32,
    rest2: f32,
    epsilon: f32,
    keep: f32,
    rate: f32,
    root_correction: f32,
) {
    let at = ABSOLUTE_POS;
    if at < numbers {
        let g = grad[at] * scale;
        let m = first[at] * beta1 + g * rest1;
        let v = second[at] * beta2 + g * g * rest2;
        first[at] = m;
        second[at] = v;
        weight[at] = weight[at] * keep - rate * m / (v.sqrt() / root_correction + epsilon);
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn squares_kernel(x: &[f32], shares: &mut [f32], numbers: usize, #[comptime] lanes: usize) {
    let lane = UNIT_POS_X as usize;
    let mut sum = 0.0f32;
    for i in range_stepped(
        CUBE_POS * lanes + lane,
        numbers,
        CUBE_COUNT_X as usize * lanes,
    ) {
        sum += x[i] * x[i];
    }
    let share = row_sum(sum, lanes);
    if lane == 0 {
        shares[CUBE_POS] = share;
    }
}

/// The weight and both moments, written where they stand if nothing else holds them. All in f32.
pub(super) fn step(
    [weight, grad, first, second]: [CubeTensor; 4],
    step: AdamWStep,
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let [weight, first, second] = [weight, first, second].map(owned);
    let grad = burn_cubecl::kernel::into_contiguous(grad);
    let numbers = weight.meta.num_elements();
    let dim = CubeDim::new(&weight.client, numbers);
    let address = address(&[&weight]);
    // SAFETY: the kernel checks its place.
    unsafe {
        step_kernel::launch_unchecked(
            &weight.client,
            calculate_cube_count_elemwise(&weight.client, numbers, dim),
            dim,
            address,
            weight.clone().into_buffer_arg(),
            grad.into_buffer_arg(),
            first.clone().into_buffer_arg(),
            second.clone().into_buffer_arg(),
            numbers,
            step.scale as f32,
            step.beta1 as f32,
            step.beta2 as f32,
            (1.0 - step.beta1) as f32,
            (1.0 - step.beta2) as f32,
            step.epsilon as f32,
            step.keep as f32,
            step.rate as f32,
            step.root_correction as f32,
        );
    }
    (weight, first, second)
}

pub(super) fn square_sum(x: &CubeTensor) -> Option<CubeTensor> {
    let x = dense(x).filter(|x| x.dtype == DType::F32)?;
    let numbers = x.meta.num_elements();
    let cubes = numbers.div_ceil(UNITS).clamp(1, SHARES);
    let shares = empty(&x, [cubes], DType::F32);
    let address = address(&[&x]);
    // SAFETY: the kernel stays within its numbers, and there is a share for each cube.
    unsafe {
        squares_kernel::launch_unchecked(
            &shares.client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(UNITS as u32),
            address,
            x.clone().into_buffer_arg(),
            shares.clone().into_buffer_arg(),
            numbers,
            UNITS,
        );
    }
    Some(total(shares, [1], DType::F32))
}
