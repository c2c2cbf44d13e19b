//! SwiGLU and its gradient.

use burn_cubecl::cubecl::{self, calculate_cube_count_elemwise, prelude::*};
use burn_cubecl::tensor::CubeTensor;

use super::element;
use super::rows::{address, dense, empty, rows_of, vector};
use crate::swiglu::out_shape;

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

/// Each unit has one vector of the output.
#[cube(launch_unchecked, address_type = "dynamic")]
fn forward_kernel<F: Float, N: Size>(
    h: &[Vector<F, N>],
    out: &mut [Vector<F, N>],
    vectors: usize,
    half: usize,
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        let from = at / half * 2 * half + at % half;
        let value = Vector::<f32, N>::cast_from(h[from]);
        let gate = Vector::<f32, N>::cast_from(h[from + half]);
        out[at] = Vector::cast_from(gate * sigmoid::<N>(gate) * value);
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
    #[define(F)] _dtype: ElemType,
) {
    let at = ABSOLUTE_POS;
    if at < vectors {
        let from = at / half * 2 * half + at % half;
        let value = Vector::<f32, N>::cast_from(h[from]);
        let gate = Vector::<f32, N>::cast_from(h[from + half]);
        let open = sigmoid::<N>(gate);
        let scaled = Vector::<f32, N>::cast_from(dy[at]) * open;
        let slope = gate - gate * open + Vector::<f32, N>::new(1.0f32);
        dh[from] = Vector::cast_from(scaled * gate);
        dh[from + half] = Vector::cast_from(scaled * value * slope);
    }
}

pub(super) fn forward(h: &CubeTensor) -> Option<CubeTensor> {
    let h = dense(h)?;
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
            element(h.dtype),
        );
    }
    Some(out)
}

pub(super) fn backward(h: &CubeTensor, dy: &CubeTensor) -> Option<CubeTensor> {
    let (h, dy) = (dense(h)?, dense(dy)?);
    if dy.dtype != h.dtype {
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
            element(h.dtype),
        );
    }
    Some(dh)
}
