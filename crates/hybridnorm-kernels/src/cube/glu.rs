//! Gated linear units and their gradient.

use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::element;
use super::rows::{address, dense, empty, rows_of, vector};
use crate::glu::{Gate, out_shape};

/// `1/(1 + e^−x)`, without an exponential that could overflow.
#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let mut out = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..N::value() {
        let x = x.extract(k);
        let small = (0.0f32 - x.abs()).exp();
        let above = select(x >= 0.0f32, 1.0f32, small);
        out.insert(k, above / (1.0f32 + small));
    }
    out
}

/// What σ is taken of in `gate·σ(angle)`, and its slope.
#[cube]
fn angle<N: Size>(gate: Vector<f32, N>, #[comptime] function: Gate) -> Vector<f32, N> {
    let mut angle = gate;
    if comptime!(function == Gate::GeluTanh) {
        let one = Vector::<f32, N>::new(1.0f32);
        let cubic = Vector::<f32, N>::new(0.044715f32);
        angle = gate * (one + gate * gate * cubic) * Vector::<f32, N>::new(1.595_769_f32);
    }
    angle
}

#[cube]
fn angle_slope<N: Size>(gate: Vector<f32, N>, #[comptime] function: Gate) -> Vector<f32, N> {
    let mut slope = Vector::<f32, N>::new(1.0f32);
    if comptime!(function == Gate::GeluTanh) {
        let cubic = Vector::<f32, N>::new(3.0f32 * 0.044715f32);
        slope = (slope + gate * gate * cubic) * Vector::<f32, N>::new(1.595_769_f32);
    }
    slope
}

/// 1 where the gate of a ReLU is open, 0 elsewhere.
#[cube]
fn is_positive<N: Size>(gate: Vector<f32, N>) -> Vector<f32, N> {
    let mut out = Vector::<f32, N>::new(0.0f32);
    #[unroll]
    for k in 0..N::value() {
        out.insert(k, select(gate.extract(k) > 0.0f32, 1.0f32, 0.0f32));
    }
    out
}

/// Each unit has one vector of the output.
#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    h: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    half: usize,
    #[comptime] function: Gate,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        let from = at / half * 2 * half + at % half;
        let value = Vector::<f32, N>::cast_from(h[from]);
        let gate = Vector::<f32, N>::cast_from(h[from + half]);
        let mut open = is_positive::<N>(gate);
        if comptime!(function != Gate::Relu) {
            open = sigmoid::<N>(angle::<N>(gate, function));
        }
        out[at] = Vector::cast_from(gate * open * value);
    }
}

/// Each unit has one vector of the upstream gradient.
#[cube(launch_unchecked, address_type = "dynamic")]
fn backward_kernel<F: Float, N: Size>(
    h: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    dh: &mut [Vector<F, N>],
    vectors: usize,
    half: usize,
    #[comptime] function: Gate,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        let from = at / half * 2 * half + at % half;
        let value = Vector::<f32, N>::cast_from(h[from]);
        let gate = Vector::<f32, N>::cast_from(h[from + half]);
        let one = Vector::<f32, N>::new(1.0f32);
        let mut open = is_positive::<N>(gate);
        let mut slope = one;
        if comptime!(function != Gate::Relu) {
            let angle = angle::<N>(gate, function);
            open = sigmoid::<N>(angle);
            let shut = sigmoid::<N>(Vector::<f32, N>::new(0.0f32) - angle);
            slope = one + gate * shut * angle_slope::<N>(gate, function);
        }
        let scaled = Vector::<f32, N>::cast_from(dy[at]) * open;
        dh[from] = Vector::cast_from(scaled * gate);
        dh[from + half] = Vector::cast_from(scaled * value * slope);
    }
}

/// `None` for GELU itself, whose error function is Burn's.
pub(super) fn forward(h: &CubeTensor, gate: Gate) -> Option<CubeTensor> {
    let h = dense(h).filter(|_| gate != Gate::Gelu)?;
    let [_, width] = rows_of(&h);
    let half = width / 2;
    let size = vector(&h, half);
    let out = empty(&h, out_shape(h.meta.shape()), h.dtype);
    let vectors = out.meta.num_elements() / size;
    let dim = CubeDim::new(&out.client, vectors);
    let address = address(&[&h]);
    // SAFETY: the kernel checks its place.
    unsafe {
        forward_kernel::launch_unchecked(
            &out.client,
            calculate_cube_count_elemwise(&out.client, vectors, dim),
            dim,
            address,
            size,
            h.clone().into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            half / size,
            gate,
            element(h.dtype),
        );
    }
    Some(out)
}

pub(super) fn backward(h: &CubeTensor, dy: &CubeTensor, gate: Gate) -> Option<CubeTensor> {
    let (h, dy) = (dense(h)?, dense(dy)?);
    if dy.dtype != h.dtype || gate == Gate::Gelu {
        return None;
    }
    let [_, half] = rows_of(&dy);
    let size = vector(&h, half);
    let dh = empty(&h, h.meta.shape().clone(), h.dtype);
    let vectors = dy.meta.num_elements() / size;
    let dim = CubeDim::new(&dh.client, vectors);
    let address = address(&[&h]);
    // SAFETY: the kernel checks its place.
    unsafe {
        backward_kernel::launch_unchecked(
            &dh.client,
            calculate_cube_count_elemwise(&dh.client, vectors, dim),
            dim,
            address,
            size,
            h.clone().into_buffer_arg(),
            dy.into_buffer_arg(),
            dh.clone().into_buffer_arg(),
            vectors,
            half / size,
            gate,
            element(h.dtype),
        );
    }
    Some(dh)
}
