//! The operations, over Burn's backends.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::IntDType;

use crate::adamw::AdamWStep;
use crate::compose;
use crate::groups::Groups;
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;

/// The operations of this crate on a backend's own tensors; the crate's functions are the same on [`Tensor`](burn::tensor::Tensor)s,
/// with shapes and meaning explained.
#[backend_extension(
    Autodiff,
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "cube"),
    Remote: cfg(feature = "remote"),
    Fusion: cfg(feature = "fusion")
)]
pub trait KernelOps: Backend {
    /// See [`grouped_matmul`](crate::grouped_matmul).
    #[fusion(meta = |x, weights, _groups| TensorSpec::new([x.shape[0], weights.shape[2]].into(), x.dtype))]
    fn grouped_matmul(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        compose::grouped_matmul::<Self>(x, weights, &groups)
    }

    /// The gradient of [`grouped_matmul`](Self::grouped_matmul) in its matrices: `out[g] = Σ x[r]ᵀ · dy[r]` over the rows of group
    /// `g`; `[groups, d_in, d_out]` from `[rows, d_in]` and `[rows, d_out]`.
    #[fusion(meta = |x, dy, groups| TensorSpec::new([groups.len(), x.shape[1], dy.shape[1]].into(), x.dtype))]
    fn grouped_outer(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        compose::grouped_outer::<Self>(x, dy, &groups)
    }

    /// See [`dispatch`](crate::dispatch); `places` is what its gradient needs.
    #[fusion(meta = |x, rows, _places| TensorSpec::new([rows.shape[0], x.shape[1]].into(), x.dtype))]
    fn dispatch(
        x: FloatTensor<Self>,
        rows: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = places;
        Self::float_select(x, 0, rows)
    }

    /// See [`combine`](crate::combine); `rows` and `order` are what its gradient needs.
    #[fusion(meta = |y, weights, _rows, _order, _places| TensorSpec::new([weights.shape[0], y.shape[1]].into(), y.dtype))]
    fn combine(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        rows: IntTensor<Self>,
        order: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let _ = (rows, order);
        compose::combine::<Self>(y, weights, places)
    }

    /// See [`adamw`](crate::adamw()). Fused where the backend fuses; elsewhere one pass instead of a dozen.
    #[fusion(default)]
    fn adamw(
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        compose::adamw::<Self>(weight, grad, [first, second], step)
    }

    /// See [`top_k`](crate::top_k).
    #[fusion(meta = |scores, k, int| TensorSpec::new([scores.shape[0], *k].into(), (*int).into()))]
    fn top_k(scores: FloatTensor<Self>, k: usize, int: IntDType) -> IntTensor<Self> {
        Self::float_argtopk(scores, 1, k, int)
    }
}

#[cfg(feature = "ndarray")]
impl KernelOps for burn::backend::NdArray {
    /// Burn's sort for this backend leaves equal values in no order.
    fn top_k(scores: FloatTensor<Self>, k: usize, int: IntDType) -> IntTensor<Self> {
        use burn::backend::ops::{FloatTensorOps, IntTensorOps};
        use burn::backend::{TensorMetadata, try_read_sync};
        use burn::tensor::TensorData;

        let (device, shape) = (scores.device(), scores.shape());
        let data = try_read_sync(Self::float_into_data(scores.clone()));
        let Some(Ok(data)) = data else {
            return Self::float_argtopk(scores, 1, k, int);
        };
        let values: Vec<f64> = data.iter().collect();
        let chosen = crate::host::top_k(&values, shape[1], k);
        let chosen = TensorData::new(chosen, [shape[0], k]).convert_dtype(int.into());
        Self::int_from_data(chosen, &device)
    }
}

#[cfg(feature = "cube")]
impl KernelOps for burn_cubecl::CubeBackend {}

/// Composed here, and computed where the device is: a server knows Burn's own operations only.
#[cfg(feature = "remote")]
impl<C: burn_router::RouterChannel> KernelOps for burn_router::BackendRouter<C> {}
