//! Rows of numbers, spread over a device: some units share a row, some rows a cube.

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::{self, prelude::*};
use burn_cubecl::{CubeBackend, kernel::into_contiguous, tensor::CubeTensor};

/// Units of a cube: what every runtime allows.
pub(super) const UNITS: usize = 256;
/// Cubes along one axis: what every runtime allows.
const CUBES: usize = 65_535;

/// How rows are spread.
pub(super) struct Spread {
    pub count: CubeCount,
    pub dim: CubeDim,
    /// Units that share a row, a power of two.
    pub lanes: usize,
}

/// `rows` rows with work for `width` units each.
pub(super) fn spread(rows: usize, width: usize) -> Spread {
    let lanes = width.next_power_of_two().min(UNITS);
    let per_cube = UNITS / lanes;
    let cubes = rows.div_ceil(per_cube).max(1);
    let y = cubes.div_ceil(CUBES);
    let x = cubes.div_ceil(y);
    Spread {
        count: CubeCount::Static(x as u32, y as u32, 1),
        dim: CubeDim::new_2d(lanes as u32, per_cube as u32),
        lanes,
    }
}

/// Whether the kernels compute in this type: in f32 inside, whatever they read and write.
pub(super) fn computes(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// `x` without gaps, where the kernels compute in its type.
pub(super) fn dense(x: &CubeTensor) -> Option<CubeTensor> {
    computes(x.dtype).then(|| into_contiguous(x.clone()))
}

/// A tensor with nothing in it yet, beside another.
pub(super) fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    let shape = shape.into();
    let buffer = like.client.empty(shape.num_elements() * dtype.size());
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, shape, buffer, dtype)
}

/// `x` itself where nothing else holds it, a copy elsewhere: for kernels that write where they read.
pub(super) fn owned(x: CubeTensor) -> CubeTensor {
    let x = into_contiguous(x);
    match x.can_mut() && x.is_nonoverlapping() {
        true => x,
        false => x.copy(),
    }
}

/// Numbers of a vector: as many as the device likes to load at once, of those that divide `width`.
pub(super) fn vector(x: &CubeTensor, width: usize) -> usize {
    let sizes = x.client.io_optimized_vector_sizes(x.dtype.size());
    let fits = sizes.filter(|size| width.is_multiple_of(*size));
    fits.max().unwrap_or(1)
}

/// How the elements of `tensors` are counted.
pub(super) fn address(tensors: &[&CubeTensor]) -> AddressType {
    let types = tensors.iter().map(|x| x.required_address_type());
    types.max().unwrap_or_default()
}

/// The sum over dimension 0, in another shape and type.
pub(super) fn total(x: CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    type B = CubeBackend;
    let sum = B::float_reshape(B::float_sum_dim(x, 0), shape.into());
    B::float_cast(sum, dtype.into())
}

/// The shape of `x` as rows of its last dimension.
pub(super) fn rows_of(x: &CubeTensor) -> [usize; 2] {
    let shape = x.shape();
    let width = shape[shape.num_dims() - 1];
    [shape.num_elements() / width.max(1), width]
}

/// The row of this unit.
#[cube]
pub(super) fn this_row() -> usize {
    CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize
}

/// The sum of `value` over the units that share a row. All units of a cube must come here.
#[cube]
pub(super) fn row_sum(value: f32, #[comptime] lanes: usize) -> f32 {
    over_row(value, lanes, false)
}

/// The largest `value` of the units that share a row. All units of a cube must come here.
#[cube]
pub(super) fn row_max(value: f32, #[comptime] lanes: usize) -> f32 {
    over_row(value, lanes, true)
}

/// Combines the values of a row pairwise, in an order that depends on their number alone.
#[cube]
fn over_row(value: f32, #[comptime] lanes: usize, #[comptime] largest: bool) -> f32 {
    let mut all = Shared::<[f32]>::new_slice(comptime!(UNITS));
    let lane = UNIT_POS_X as usize;
    let first = UNIT_POS_Y as usize * lanes;
    all[first + lane] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(lanes.ilog2()) {
        let stride = comptime!(lanes >> (step + 1));
        if lane < stride {
            let own = all[first + lane];
            let other = all[first + lane + stride];
            if comptime!(largest) {
                all[first + lane] = max(own, other);
            } else {
                all[first + lane] = own + other;
            }
        }
        sync_cube();
    }
    let combined = all[first];
    sync_cube();
    combined
}

/// The sum of a vector's numbers.
#[cube]
pub(super) fn across<N: Size>(x: Vector<f32, N>) -> f32 {
    let mut sum = 0.0f32;
    #[unroll]
    for k in 0..N::value() {
        sum += x.extract(k);
    }
    sum
}
