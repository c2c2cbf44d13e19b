//! The head and the cross-entropy of its logits in one, a few rows at a time, so that those of all rows never exist.
//!
//! A row of logits is `z = softcap(scale·(x·W + b))`. The gradient of a sum of losses in `z` needs nothing but `z`, so the forward pass
//! computes the gradients in `x`, `W` and `b` while it has it, and the backward pass multiplies them by a single number: no product is
//! computed twice.

use burn::backend::autodiff::Autodiff;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata};
use burn::tensor::{FloatDType, Int, Shape, Slice, Tensor};

use crate::attention::{capped, working};
use crate::compose::{self, concat, in_products, rows_of};
use crate::cross_entropy;
use crate::ops::KernelOps;
use crate::reference::reference_ops;

/// What the head makes of its product, and how much of it at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadSpec {
    /// Factor on the logits; 1 for none.
    pub scale: f64,
    /// `cap·tanh(z/cap)` of what the factor gave (Gemma 2).
    pub softcap: Option<f64>,
    /// Rows whose logits exist at once, at least 1.
    pub rows: usize,
    /// What matrices are multiplied in; `None` for the type of the input.
    pub products: Option<FloatDType>,
}

/// `Σ share[r]·(−ln softmax(z[r])[target[r]])`, in nats, where `z` are the logits of the head on `x`.
///
/// # Shapes
/// - `x` `[rows, d_model]`
/// - `weight` `[d_model, vocab]`, `bias` `[vocab]`
/// - `targets` `[rows]`, each below `vocab`, also where the share is 0
/// - `shares` `[rows]`: what each row counts; has no gradient
/// - output `[1]`, in f32, or f64 where `x` is
///
/// # Panics
/// When a shape does not fit: a programming mistake.
pub fn head_loss(
    x: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: Tensor<1, Int>,
    shares: Tensor<1>,
    spec: HeadSpec,
) -> Tensor<1> {
    let ([rows, d_model], [d_in, _]) = (x.dims(), weight.dims());
    assert_eq!(d_model, d_in, "head_loss: {d_model} columns by {d_in} rows");
    assert_eq!(
        [targets.dims(), shares.dims()],
        [[rows]; 2],
        "head_loss: targets and shares of {rows} rows"
    );
    assert!(spec.rows > 0, "head_loss: rows at once");
    let biased = bias.is_some();
    let bias = bias.unwrap_or_else(|| Tensor::zeros([1], &x.device()));
    let (loss, ..) = Dispatch::head_loss(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        biased,
        targets.into_dispatch(),
        shares.into_dispatch(),
        spec,
        false,
    );
    Tensor::from_dispatch(loss)
}

/// The loss, and the gradients of `x`, `weight` and `bias` in it; where nobody wants these, and of a bias that is not there, a number
/// without meaning.
pub(crate) type LossAndGradients<T> = (T, T, T, T);

/// The parameters of a head.
pub(crate) struct Head<T> {
    pub(crate) weight: T,
    pub(crate) bias: Option<T>,
}

/// The logits of `x`, whole, under no cap yet.
fn logits<B: KernelOps>(
    x: FloatTensor<B>,
    head: &Head<FloatTensor<B>>,
    spec: &HeadSpec,
) -> FloatTensor<B> {
    let dtype = working(x.dtype());
    let z = B::float_cast(B::project(x, head.weight.clone()), dtype);
    let z = match &head.bias {
        Some(bias) => {
            let bias = B::float_cast(bias.clone(), dtype);
            let columns = bias.shape()[0];
            B::float_add(z, B::float_reshape(bias, Shape::from([1, columns])))
        }
        None => z,
    };
    match spec.scale {
        1.0 => z,
        scale => B::float_mul_scalar(z, scale.into()),
    }
}

/// The loss of all rows at once, differentiable by Burn itself: what the operation computes.
fn whole<B: KernelOps>(
    x: FloatTensor<B>,
    head: &Head<FloatTensor<B>>,
    targets: IntTensor<B>,
    shares: FloatTensor<B>,
    spec: &HeadSpec,
) -> FloatTensor<B> {
    let rows = x.shape()[0];
    let [x, weight] = [x, head.weight.clone()].map(|x| in_products::<B>(x, spec.products));
    let bias = head.bias.clone();
    let z = capped::<B>(logits::<B>(x, &Head { weight, bias }, spec), spec.softcap);
    let both = cross_entropy::forward::<B>(z, targets);
    weighed::<B>(both, shares, rows)
}

/// `Σ share·nll`, `[1]`, from the rows of `nll` and of log-sum-exp.
fn weighed<B: Backend>(
    both: FloatTensor<B>,
    shares: FloatTensor<B>,
    rows: usize,
) -> FloatTensor<B> {
    let nll = B::float_reshape(rows_of::<B>(&both, 0..1), Shape::from([rows]));
    B::float_sum(B::float_mul(nll, shares))
}

/// Slice after slice of rows, in Burn's operations and those of this crate.
pub(crate) fn forward<B: KernelOps>(
    x: FloatTensor<B>,
    head: Head<FloatTensor<B>>,
    targets: IntTensor<B>,
    shares: FloatTensor<B>,
    spec: HeadSpec,
    gradients: bool,
) -> LossAndGradients<FloatTensor<B>> {
    let (rows, own, device) = (x.shape()[0], x.dtype(), x.device());
    let dtype = working(own);
    let shares = B::float_cast(shares, dtype);
    let product = Head {
        weight: in_products::<B>(head.weight.clone(), spec.products),
        bias: head.bias.clone(),
    };
    let (mut loss, mut dxs) = (None, Vec::new());
    let (mut dweight, mut dbias) = (None, None);
    for start in (0..rows).step_by(spec.rows) {
        let range = start..rows.min(start + spec.rows);
        let x = in_products::<B>(rows_of::<B>(&x, range.clone()), spec.products);
        let targets = B::int_slice(targets.clone(), &[Slice::from(range.clone())]);
        let shares = B::float_slice(shares.clone(), &[Slice::from(range.clone())]);
        let z = logits::<B>(x.clone(), &product, &spec);
        let slope = spec
            .softcap
            .map(|cap| compose::cap_slope::<B>(z.clone(), cap));
        let z = capped::<B>(z, spec.softcap);
        let both = B::cross_entropy(z.clone(), targets.clone());
        add::<B>(
            &mut loss,
            weighed::<B>(both.clone(), shares.clone(), range.len()),
        );
        if !gradients {
            continue;
        }
        let dz = gradient_of_logits::<B>(z, targets, both, shares);
        let dz = match slope {
            Some(slope) => B::float_mul(dz, slope),
            None => dz,
        };
        let dz = match spec.scale {
            1.0 => dz,
            scale => B::float_mul_scalar(dz, scale.into()),
        };
        if head.bias.is_some() {
            add::<B>(&mut dbias, B::float_sum_dim(dz.clone(), 0));
        }
        let dz = B::float_cast(dz, x.dtype().into());
        let (dx, part) = B::project_backward(x, product.weight.clone(), dz);
        dxs.push(B::float_cast(dx, own.into()));
        add::<B>(&mut dweight, B::float_cast(part, dtype));
    }
    let nothing = || B::float_zeros(Shape::from([1]), &device, own.into());
    let in_own = |x: Option<FloatTensor<B>>, like: &FloatTensor<B>| match x {
        Some(x) => B::float_cast(x, like.dtype().into()),
        None => nothing(),
    };
    let dbias = dbias.zip(head.bias).map(|(dbias, bias)| {
        let dbias = B::float_reshape(dbias, bias.shape());
        B::float_cast(dbias, bias.dtype().into())
    });
    (
        loss.unwrap_or_else(|| B::float_zeros(Shape::from([1]), &device, dtype)),
        match dxs.is_empty() {
            true => nothing(),
            false => concat::<B>(dxs),
        },
        in_own(dweight, &head.weight),
        dbias.unwrap_or_else(nothing),
    )
}

/// The gradient of the loss in the logits `z`, capped and scaled as they are.
fn gradient_of_logits<B: KernelOps>(
    z: FloatTensor<B>,
    targets: IntTensor<B>,
    both: FloatTensor<B>,
    shares: FloatTensor<B>,
) -> FloatTensor<B> {
    let rows = shares.shape()[0];
    let shares = B::float_reshape(shares, Shape::from([1, rows]));
    let unused = B::float_mul_scalar(shares.clone(), 0.0.into());
    let upstream = B::float_cat(vec![shares, unused], 0);
    B::cross_entropy_backward(z, targets, both, upstream)
}

fn add<B: Backend>(sum: &mut Option<FloatTensor<B>>, part: FloatTensor<B>) {
    *sum = Some(match sum.take() {
        Some(sum) => B::float_add(sum, part),
        None => part,
    });
}

/// `x` times the one number of `by`.
pub(crate) fn scaled<B: Backend>(x: FloatTensor<B>, by: FloatTensor<B>) -> FloatTensor<B> {
    let by = B::float_cast(by, x.dtype().into());
    let by = B::float_reshape(by, Shape::from(vec![1; x.shape().num_dims()]));
    B::float_mul(x, by)
}

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    head: Head<FloatTensor<Autodiff<B, C>>>,
    targets: IntTensor<B>,
    shares: FloatTensor<Autodiff<B, C>>,
    spec: HeadSpec,
) -> LossAndGradients<FloatTensor<Autodiff<B, C>>> {
    let nothing = || shares.clone();
    let loss = if reference_ops() {
        whole::<Autodiff<B, C>>(x, &head, targets, shares.clone(), &spec)
    } else {
        let biased = head.bias.is_some();
        let bias = head.bias.unwrap_or_else(nothing);
        let nodes = [x.node(), head.weight.node(), bias.node()];
        let run = |gradients: bool| {
            let [x, weight, bias] = [x, head.weight, bias].map(|x| x.into_primitive());
            let shares = shares.clone().into_primitive();
            B::head_loss(x, weight, bias, biased, targets, shares, spec, gradients)
        };
        match HeadLoss.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, dx, dweight, dbias) = run(true);
                prep.finish((dx, dweight, biased.then_some(dbias)), loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(run(false).0),
        }
    };
    (loss, nothing(), nothing(), nothing())
}

#[derive(Debug)]
struct HeadLoss;

impl<B: KernelOps> Backward<B, 3> for HeadLoss {
    type State = (FloatTensor<B>, FloatTensor<B>, Option<FloatTensor<B>>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let upstream = grads.consume::<B>(&ops.node);
        let (dx, dweight, dbias) = ops.state;
        let gradients = [Some(dx), Some(dweight), dbias];
        for (node, gradient) in ops.parents.into_iter().zip(gradients) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, B::scaled(gradient, upstream.clone()));
            }
        }
    }
}
