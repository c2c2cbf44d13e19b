//! The norms of queries, keys and values with the rotation, and their gradient. Each unit has one pair of vectors of one head: what a
//! rotation turns.

use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::{CubeBackend, tensor::CubeTensor};

use super::element;
use super::rows::{UNITS, across, address, dense, empty, row_sum, spread, this_row, total, vector};
use crate::qkv::{Constants, QkvNorm, QkvSpec};

/// Strips of tokens whose shares of the scales' gradients are added up apart from each other.
const STRIPS: usize = 64;

/// What a launch and a kernel agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Plan {
    heads: usize,
    kv_heads: usize,
    normed: [bool; 3],
    rotary: bool,
    /// Vectors of half a head.
    half: usize,
    lanes: usize,
}

/// Which scale a head has: 0 for queries, 1 for keys, 2 for values.
#[cube]
fn part_of(head: usize, #[comptime] plan: Plan) -> usize {
    let key = select::<usize>(head < comptime!(plan.heads), 0, 1);
    select::<usize>(head < comptime!(plan.heads + plan.kv_heads), key, 2)
}

#[cube]
fn is_normed(part: usize, #[comptime] plan: Plan) -> bool {
    let [query, key, value] = comptime!(plan.normed);
    (part == 0 && query) || (part == 1 && key) || (part == 2 && value)
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn forward_kernel<F: Float, N: Size>(
    qkv: &[Vector<F, N>],
    scales: &[Vector<f32, N>],
    cos: &[Vector<f32, N>],
    sin: &[Vector<f32, N>],
    out: &mut [Vector<F, N>],
    rows: usize,
    seq: usize,
    epsilon: f32,
    #[comptime] plan: Plan,
    #[define(F)] _dtype: ElemType,
) {
    let all = comptime!(plan.heads + 2 * plan.kv_heads);
    let half = comptime!(plan.half);
    let row = this_row();
    let inside = row < rows && (UNIT_POS_X as usize) < half;
    let row = select(inside, row, 0);
    let i = select(inside, UNIT_POS_X as usize, 0);
    let head = row % all;
    let token = row / all;
    let part = part_of(head, plan);
    let from = row * 2 * half + i;
    let mut a = Vector::<f32, N>::cast_from(qkv[from]);
    let mut b = Vector::<f32, N>::cast_from(qkv[from + half]);
    let squares = across::<N>(a * a + b * b);
    let numbers = f32::cast_from(comptime!(2 * half) * N::value());
    let sum = row_sum(select(inside, squares, 0.0f32), comptime!(plan.lanes));
    if is_normed(part, plan) {
        let inverse = Vector::<f32, N>::new(1.0 / (sum / numbers + epsilon).sqrt());
        a = a * inverse * scales[part * 2 * half + i];
        b = b * inverse * scales[part * 2 * half + half + i];
    }
    let at = token % seq;
    if comptime!(plan.rotary) && part < 2 {
        let cos = cos[at * half + i];
        let sin = sin[at * half + i];
        let turned = a * cos - b * sin;
        b = b * cos + a * sin;
        a = turned;
    }
    if inside {
        let to = ((token / seq * all + head) * seq + at) * 2 * half + i;
        out[to] = Vector::cast_from(a);
        out[to + half] = Vector::cast_from(b);
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
#[allow(clippy::too_many_arguments)]
fn backward_kernel<F: Float, N: Size>(
    qkv: &[Vector<F, N>],
    scales: &[Vector<f32, N>],
    cos: &[Vector<f32, N>],
    sin: &[Vector<f32, N>],
    dy: &[Vector<F, N>],
    dqkv: &mut [Vector<F, N>],
    shares: &mut [Vector<f32, N>],
    tokens: usize,
    seq: usize,
    strips: usize,
    epsilon: f32,
    #[comptime] plan: Plan,
    #[define(F)] _dtype: ElemType,
) {
    let all = comptime!(plan.heads + 2 * plan.kv_heads);
    let half = comptime!(plan.half);
    let group = this_row();
    let known = group < strips * all && (UNIT_POS_X as usize) < half;
    let group = select(known, group, 0);
    let i = select(known, UNIT_POS_X as usize, 0);
    let head = group % all;
    let strip = group / all;
    let part = part_of(head, plan);
    let numbers = f32::cast_from(comptime!(2 * half) * N::value());
    let mut share_a = Vector::<f32, N>::new(0.0f32);
    let mut share_b = Vector::<f32, N>::new(0.0f32);
    let scale_a = scales[part * 2 * half + i];
    let scale_b = scales[part * 2 * half + half + i];
    // All units of a cube take as many turns, for they wait for each other in each.
    for turn in 0..tokens.div_ceil(strips) {
        let token = turn * strips + strip;
        let inside = known && token < tokens;
        let token = select(inside, token, 0);
        let at = token % seq;
        let from = ((token / seq * all + head) * seq + at) * 2 * half + i;
        let mut da = Vector::<f32, N>::cast_from(dy[from]);
        let mut db = Vector::<f32, N>::cast_from(dy[from + half]);
        if comptime!(plan.rotary) && part < 2 {
            let cos = cos[at * half + i];
            let sin = sin[at * half + i];
            let turned = da * cos + db * sin;
            db = db * cos - da * sin;
            da = turned;
        }
        let to = (token * all + head) * 2 * half + i;
        let a = Vector::<f32, N>::cast_from(qkv[to]);
        let b = Vector::<f32, N>::cast_from(qkv[to + half]);
        let squares = across::<N>(a * a + b * b);
        let products = across::<N>(da * scale_a * a + db * scale_b * b);
        let lanes = comptime!(plan.lanes);
        let mean = row_sum(select(inside, squares, 0.0f32), lanes) / numbers;
        let inverse = 1.0 / (mean + epsilon).sqrt();
        let along = row_sum(select(inside, products, 0.0f32), lanes) / numbers;
        let along = Vector::<f32, N>::new(along * inverse * inverse);
        let inverse = Vector::<f32, N>::new(inverse);
        if inside {
            if is_normed(part, plan) {
                share_a += da * a * inverse;
                share_b += db * b * inverse;
                da = (da * scale_a - a * along) * inverse;
                db = (db * scale_b - b * along) * inverse;
            }
            dqkv[to] = Vector::cast_from(da);
            dqkv[to + half] = Vector::cast_from(db);
        }
    }
    if known {
        let to = group * 2 * half + i;
        shares[to] = share_a;
        shares[to + half] = share_b;
    }
}

/// Everything but the projection, in f32.
struct Tables {
    /// `[3, head_dim]`
    scales: CubeTensor,
    cos: CubeTensor,
    sin: CubeTensor,
}

impl Tables {
    fn of(with: &Constants<CubeTensor>, spec: QkvSpec) -> Self {
        type B = CubeBackend;
        let own = |x: &CubeTensor| B::float_cast(x.clone(), DType::F32.into());
        let row = |x: &CubeTensor| B::float_reshape(own(x), Shape::from([1, spec.head_dim]));
        let scales = B::float_cat(with.weights.iter().map(row).collect(), 0);
        let [cos, sin] =
            [&with.cos, &with.sin].map(|x| burn_cubecl::kernel::into_contiguous(own(x)));
        Self { scales, cos, sin }
    }
}

fn plan(qkv: &CubeTensor, spec: QkvSpec) -> Option<(Plan, usize)> {
    // Rows as wide as all heads are normed by the operation that norms rows.
    if spec.norms.contains(&Some(QkvNorm::FullWidth)) {
        return None;
    }
    let size = vector(qkv, spec.head_dim / 2).min(4);
    let half = spec.head_dim / 2 / size;
    let plan = Plan {
        heads: spec.heads,
        kv_heads: spec.kv_heads,
        normed: spec.norms.map(|norm| norm.is_some()),
        rotary: spec.rotary,
        half,
        lanes: half.next_power_of_two(),
    };
    (half <= UNITS).then_some((plan, size))
}

pub(super) fn forward(
    qkv: &CubeTensor,
    with: &Constants<CubeTensor>,
    spec: QkvSpec,
) -> Option<CubeTensor> {
    let qkv = dense(qkv)?;
    let (plan, size) = plan(&qkv, spec)?;
    let (batch, seq) = (qkv.meta.shape()[0], qkv.meta.shape()[1]);
    let out = empty(&qkv, [batch, spec.all(), seq, spec.head_dim], qkv.dtype);
    let rows = batch * seq * spec.all();
    let spread = spread(rows, plan.half);
    let tables = Tables::of(with, spec);
    let address = address(&[&qkv]);
    // SAFETY: the kernel checks its row and its place in the head.
    unsafe {
        forward_kernel::launch_unchecked(
            &out.client,
            spread.count,
            spread.dim,
            address,
            size,
            qkv.clone().into_buffer_arg(),
            tables.scales.into_buffer_arg(),
            tables.cos.into_buffer_arg(),
            tables.sin.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            rows,
            seq,
            spec.epsilon as f32,
            plan,
            element(qkv.dtype),
        );
    }
    Some(out)
}

/// The gradients of the projection and of the three scales.
pub(super) fn backward(
    qkv: &CubeTensor,
    with: &Constants<CubeTensor>,
    dy: &CubeTensor,
    spec: QkvSpec,
) -> Option<(CubeTensor, [CubeTensor; 3])> {
    let (qkv, dy) = (dense(qkv)?, dense(dy)?);
    let (plan, size) = plan(&qkv, spec)?;
    if dy.dtype != qkv.dtype {
        return None;
    }
    let (batch, seq) = (qkv.meta.shape()[0], qkv.meta.shape()[1]);
    let tokens = batch * seq;
    let strips = tokens.clamp(1, STRIPS);
    let dqkv = empty(&qkv, qkv.meta.shape().clone(), qkv.dtype);
    let shares = empty(&qkv, [strips, spec.all() * spec.head_dim], DType::F32);
    let spread = spread(strips * spec.all(), plan.half);
    let tables = Tables::of(with, spec);
    let address = address(&[&qkv]);
    // SAFETY: the kernel checks its strip, its tokens and its place in the head.
    unsafe {
        backward_kernel::launch_unchecked(
            &dqkv.client,
            spread.count,
            spread.dim,
            address,
            size,
            qkv.clone().into_buffer_arg(),
            tables.scales.into_buffer_arg(),
            tables.cos.into_buffer_arg(),
            tables.sin.into_buffer_arg(),
            dy.into_buffer_arg(),
            dqkv.clone().into_buffer_arg(),
            shares.clone().into_buffer_arg(),
            tokens,
            seq,
            strips,
            spec.epsilon as f32,
            plan,
            element(qkv.dtype),
        );
    }
    type B = CubeBackend;
    let heads = total(shares, [spec.all(), spec.head_dim], DType::F32);
    let mut parts = spec.parts().into_iter().zip(&with.weights);
    let dweights = [(); 3].map(|()| {
        let (part, weight) = parts.next()?;
        let slices = [part.into(), burn::tensor::Slice::full()];
        let own = B::float_slice(heads.clone(), &slices);
        Some(total(own, [spec.head_dim], weight.dtype))
    });
    let [Some(dquery), Some(dkey), Some(dvalue)] = dweights else {
        return None;
    };
    Some((dqkv, [dquery, dkey, dvalue]))
}
