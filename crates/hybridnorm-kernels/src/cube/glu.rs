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

/// `function(gate)·value`.
#[cube]
fn opened<N: Size>(
    value: Vector<f32, N>,
    gate: Vector<f32, N>,
    #[comptime] function: Gate,
) -> Vector<f32, N> {
    let mut open = is_positive::<N>(gate);
    if comptime!(function != Gate::Relu) {
        open = sigmoid::<N>(angle::<N>(gate, function));
    }
    gate * open * value
}

/// The gradients of value and gate.
#[derive(CubeType)]
struct Gradients<N: Size> {
    value: Vector<f32, N>,
    gate: Vector<f32, N>,
}

#[cube]
fn gradients<N: Size>(
    value: Vector<f32, N>,
    gate: Vector<f32, N>,
    dy: Vector<f32, N>,
    #[comptime] function: Gate,
) -> Gradients<N> {
    let one = Vector::<f32, N>::new(1.0f32);
    let mut open = is_positive::<N>(gate);
    let mut slope = one;
    if comptime!(function != Gate::Relu) {
        let angle = angle::<N>(gate, function);
        open = sigmoid::<N>(angle);
        let shut = sigmoid::<N>(Vector::<f32, N>::new(0.0f32) - angle);
        slope = one + gate * shut * angle_slope::<N>(gate, function);
    }
    let scaled = dy * open;
    Gradients::<N> {
        value: scaled * gate,
        gate: scaled * value * slope,
    }
}

/// Each unit has one vector of the output. The gate stands `half` vectors behind its value.
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
        out[at] = Vector::cast_from(opened::<N>(value, gate, function));
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
        let upstream = Vector::<f32, N>::cast_from(dy[at]);
        let gradients = gradients::<N>(value, gate, upstream, function);
        dh[from] = Vector::cast_from(gradients.value);
        dh[from + half] = Vector::cast_from(gradients.gate);
    }
}

/// As [`forward_kernel`], of value and gate in tensors of their own.
#[cube(launch_unchecked, address_type = "dynamic")]
fn gated_kernel<F: Float, N: Size>(
    value: &[Vector<F, N>],
    gate: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    #[comptime] function: Gate,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        let value = Vector::<f32, N>::cast_from(value[at]);
        let gate = Vector::<f32, N>::cast_from(gate[at]);
        out[at] = Vector::cast_from(opened::<N>(value, gate, function));
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn gated_backward_kernel<F: Float, N: Size>(
    value: &[Vector<F, N>],
    gate: &[Vector<F, N>],
    dy: &[Vector<F, N>],
    dvalue: &mut [Vector<F, N>],
    dgate: &mut [Vector<F, N>],
    vectors: usize,
    #[comptime] function: Gate,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        let value = Vector::<f32, N>::cast_from(value[at]);
        let gate = Vector::<f32, N>::cast_from(gate[at]);
        let upstream = Vector::<f32, N>::cast_from(dy[at]);
        let gradients = gradients::<N>(value, gate, upstream, function);
        dvalue[at] = Vector::cast_from(gradients.value);
        dgate[at] = Vector::cast_from(gradients.gate);
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

/// As [`forward`].
pub(super) fn gated(value: &CubeTensor, gate: &CubeTensor, function: Gate) -> Option<CubeTensor> {
    let (value, gate) = (dense(value)?, dense(gate)?);
    if gate.dtype != value.dtype || function == Gate::Gelu {
        return None;
    }
    let size = vector(&value, rows_of(&value)[1]);
    let out = empty(&value, value.meta.shape().clone(), value.dtype);
    let vectors = out.meta.num_elements() / size;
    let dim = CubeDim::new(&out.client, vectors);
    let address = address(&[&out]);
    // SAFETY: the kernel checks its place.
    unsafe {
        gated_kernel::launch_unchecked(
            &out.client,
            calculate_cube_count_elemwise(&out.client, vectors, dim),
            dim,
            address,
            size,
            value.into_buffer_arg(),
            gate.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            vectors,
            function,
            element(out.dtype),
        );
    }
    Some(out)
}

/// The gradients of value and gate.
pub(super) fn gated_backward(
    [value, gate, dy]: [&CubeTensor; 3],
    function: Gate,
) -> Option<(CubeTensor, CubeTensor)> {
    let (value, gate, dy) = (dense(value)?, dense(gate)?, dense(dy)?);
    if gate.dtype != value.dtype || dy.dtype != value.dtype || function == Gate::Gelu {
        return None;
    }
    let size = vector(&value, rows_of(&value)[1]);
    let [dvalue, dgate] = [(); 2].map(|()| empty(&value, value.meta.shape().clone(), value.dtype));
    let vectors = dvalue.meta.num_elements() / size;
    let dim = CubeDim::new(&dvalue.client, vectors);
    let address = address(&[&dvalue]);
    // SAFETY: the kernel checks its place.
    unsafe {
        gated_backward_kernel::launch_unchecked(
            &dvalue.client,
            calculate_cube_count_elemwise(&dvalue.client, vectors, dim),
            dim,
            address,
            size,
            value.into_buffer_arg(),
            gate.into_buffer_arg(),
            dy.into_buffer_arg(),
            dvalue.clone().into_buffer_arg(),
            dgate.clone().into_buffer_arg(),
            vectors,
            function,
            element(dvalue.dtype),
        );
    }
    Some((dvalue, dgate))
}
