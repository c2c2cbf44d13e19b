//! Gated linear units (arXiv 2002.05202; paper.md §2.1): a function on a gate, times a value.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata, get_device_settings};
#[cfg(any(feature = "cube", feature = "fusion"))]
use burn::tensor::Shape;
use burn::tensor::{Slice, Tensor};

use crate::ops::KernelOps;
use crate::profile::Place;
use crate::reference::reference_ops;

/// The function on a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gate {
    /// `g·σ(g)`: SwiGLU.
    Silu,
    /// GELU by its approximation `½g·(1 + tanh(√(2/π)·(g + 0.044715·g³)))`, which is `g·σ` of twice that angle.
    GeluTanh,
    /// `g·Φ(g)`: GELU itself.
    Gelu,
    /// `max(g, 0)`.
    Relu,
}

/// √(2/π), twice.
const ANGLE: f64 = 2.0 * 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;

/// `function(gate) ⊙ value`, where the last dimension holds the value, then the gate.
///
/// # Shapes
/// - `h` `[.., 2·d_ff]`
/// - output `[.., d_ff]`
///
/// # Panics
/// When the last dimension has no halves: a programming mistake.
pub fn glu<const D: usize>(h: Tensor<D>, gate: Gate) -> Tensor<D> {
    let dims = h.dims();
    assert!(dims[D - 1].is_multiple_of(2), "glu: {dims:?} has no halves");
    Tensor::from_dispatch(Dispatch::glu(h.into_dispatch(), gate))
}

/// As [`glu`], of value and gate in tensors of their own.
///
/// # Shapes
/// - `value`, `gate` and output `[.., d_ff]`
///
/// # Panics
/// When the shapes differ: a programming mistake.
pub fn gated<const D: usize>(value: Tensor<D>, gate: Tensor<D>, function: Gate) -> Tensor<D> {
    assert_eq!(value.dims(), gate.dims(), "gated: value and gate");
    let (value, gate) = (value.into_dispatch(), gate.into_dispatch());
    Tensor::from_dispatch(Dispatch::gated(value, gate, function))
}

/// The shape of the output for an input of this shape.
#[cfg(any(feature = "cube", feature = "fusion"))]
pub(crate) fn out_shape(h: &Shape) -> Shape {
    let mut shape = h.clone();
    let last = shape.num_dims() - 1;
    shape[last] /= 2;
    shape
}

/// `function(gate)`.
fn opened<B: Backend>(gate: FloatTensor<B>, function: Gate) -> FloatTensor<B> {
    match function {
        Gate::Silu => B::float_mul(B::sigmoid(gate.clone()), gate),
        Gate::GeluTanh => B::float_mul(B::sigmoid(angle::<B>(gate.clone())), gate),
        Gate::Gelu => B::float_mul(normal::<B>(gate.clone()), gate),
        Gate::Relu => B::relu(gate),
    }
}

/// The derivative of the function at `gate`. Of `g·σ(w(g))` it is `σ(w)·(1 + g·σ(−w)·w′)`: 1 − σ(w) would have lost its digits where the gate
/// is open, and w′ is large.
fn slope<B: Backend>(gate: FloatTensor<B>, function: Gate) -> FloatTensor<B> {
    let plus_one = |x| B::float_add_scalar(x, 1.0.into());
    match function {
        Gate::Silu => {
            let shut = B::sigmoid(B::float_neg(gate.clone()));
            let rest = B::float_mul(gate.clone(), shut);
            B::float_mul(B::sigmoid(gate), plus_one(rest))
        }
        Gate::GeluTanh => {
            let angle = angle::<B>(gate.clone());
            let square = B::float_mul(gate.clone(), gate.clone());
            let angle_slope = plus_one(B::float_mul_scalar(square, (3.0 * CUBIC).into()));
            let angle_slope = B::float_mul_scalar(angle_slope, ANGLE.into());
            let shut = B::sigmoid(B::float_neg(angle.clone()));
            let rest = B::float_mul(B::float_mul(gate, shut), angle_slope);
            B::float_mul(B::sigmoid(angle), plus_one(rest))
        }
        Gate::Gelu => {
            let square = B::float_mul(gate.clone(), gate.clone());
            let density = B::float_exp(B::float_mul_scalar(square, (-0.5).into()));
            let density = B::float_mul_scalar(density, (1.0 / std::f64::consts::TAU.sqrt()).into());
            B::float_add(normal::<B>(gate.clone()), B::float_mul(gate, density))
        }
        Gate::Relu => {
            let bool = get_device_settings::<B>(&gate.device()).bool_dtype;
            let dtype = gate.dtype().into();
            B::bool_into_float(B::float_greater_elem(gate, 0.0.into(), bool), dtype)
        }
    }
}

/// Twice the angle of GELU's approximation.
fn angle<B: Backend>(gate: FloatTensor<B>) -> FloatTensor<B> {
    let square = B::float_mul(gate.clone(), gate.clone());
    let factor = B::float_add_scalar(B::float_mul_scalar(square, CUBIC.into()), 1.0.into());
    B::float_mul_scalar(B::float_mul(gate, factor), ANGLE.into())
}

/// The normal distribution function Φ.
fn normal<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let erf = B::float_erf(B::float_mul_scalar(
        x,
        std::f64::consts::FRAC_1_SQRT_2.into(),
    ));
    B::float_mul_scalar(B::float_add_scalar(erf, 1.0.into()), 0.5.into())
}

pub(crate) fn forward<B: Backend>(h: FloatTensor<B>, gate: Gate) -> FloatTensor<B> {
    let [value, own] = halves::<B>(h);
    gated_forward::<B>(value, own, gate)
}

pub(crate) fn gated_forward<B: Backend>(
    value: FloatTensor<B>,
    gate: FloatTensor<B>,
    function: Gate,
) -> FloatTensor<B> {
    B::float_mul(opened::<B>(gate, function), value)
}

pub(crate) fn backward<B: Backend>(
    h: FloatTensor<B>,
    dy: FloatTensor<B>,
    gate: Gate,
) -> FloatTensor<B> {
    let last = h.shape().num_dims() - 1;
    let [value, own] = halves::<B>(h);
    let (dvalue, dgate) = gated_backward::<B>(value, own, dy, gate);
    B::float_cat(vec![dvalue, dgate], last)
}

/// The gradients of value and gate: dy·function(gate), and dy·value times the function's slope.
pub(crate) fn gated_backward<B: Backend>(
    value: FloatTensor<B>,
    gate: FloatTensor<B>,
    dy: FloatTensor<B>,
    function: Gate,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let dvalue = B::float_mul(dy.clone(), opened::<B>(gate.clone(), function));
    let dgate = B::float_mul(B::float_mul(dy, value), slope::<B>(gate, function));
    (dvalue, dgate)
}

fn halves<B: Backend>(h: FloatTensor<B>) -> [FloatTensor<B>; 2] {
    let shape = h.shape();
    let last = shape.num_dims() - 1;
    let half = shape[last] / 2;
    [0..half, half..2 * half].map(|range| {
        let mut slices = vec![Slice::full(); last];
        slices.push(Slice::from(range));
        B::float_slice(h.clone(), &slices)
    })
}

type Tracked<B, C> = FloatTensor<Autodiff<B, C>>;

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    h: Tracked<B, C>,
    gate: Gate,
) -> Tracked<B, C> {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(h, gate);
    }
    match Glu.prepare::<C>([h.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = (prep.checkpoint(&h), gate, Place::here());
            prep.finish(saved, B::glu(h.into_primitive(), gate))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::glu(h.into_primitive(), gate)),
    }
}

#[derive(Debug)]
struct Glu;

impl<B: KernelOps> Backward<B, 1> for Glu {
    type State = (NodeId, Gate, Place);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (h, gate, place) = ops.state;
        let h: FloatTensor<B> = checkpointer.retrieve_node_output(h);
        if let Some(node) = node {
            grads.register::<B>(node.id, place.at(|| B::glu_backward(h, dy, gate)));
        }
    }
}

pub(crate) fn gated_differentiable<B: KernelOps, C: CheckpointStrategy>(
    value: Tracked<B, C>,
    gate: Tracked<B, C>,
    function: Gate,
) -> Tracked<B, C> {
    if reference_ops() {
        return gated_forward::<Autodiff<B, C>>(value, gate, function);
    }
    let nodes = [value.node(), gate.node()];
    let run = |value: Tracked<B, C>, gate: Tracked<B, C>| {
        B::gated(value.into_primitive(), gate.into_primitive(), function)
    };
    match Gated.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = [prep.checkpoint(&value), prep.checkpoint(&gate)];
            prep.finish((saved, function, Place::here()), run(value, gate))
        }
        OpsKind::UnTracked(prep) => prep.finish(run(value, gate)),
    }
}

#[derive(Debug)]
struct Gated;

impl<B: KernelOps> Backward<B, 2> for Gated {
    type State = ([NodeId; 2], Gate, Place);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let (saved, function, place) = ops.state;
        let [value, gate] =
            saved.map(|id| -> FloatTensor<B> { checkpointer.retrieve_node_output(id) });
        let (dvalue, dgate) = place.at(|| B::gated_backward(value, gate, dy, function));
        for (node, gradient) in ops.parents.into_iter().zip([dvalue, dgate]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
