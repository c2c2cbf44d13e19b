//! Cross-entropy of rows of logits.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, TensorMetadata};
use burn::tensor::{IndexingUpdateOp, Int, Shape, Slice, Tensor};

use crate::ops::KernelOps;
use crate::reference::reference_ops;

/// Two numbers of each row of logits, in nats: the negative log-likelihood of its target, and the log-sum-exp.
///
/// # Shapes
/// - `logits` `[rows, vocab]`
/// - `targets` `[rows]`, each below `vocab`
/// - output `[2, rows]`
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<2> {
    let ([rows, _], [targeted]) = (logits.dims(), targets.dims());
    assert_eq!(
        rows, targeted,
        "cross_entropy: {targeted} targets for {rows} rows"
    );
    let out = Dispatch::cross_entropy(logits.into_dispatch(), targets.into_dispatch());
    Tensor::from_dispatch(out)
}

pub(crate) fn forward<B: Backend>(logits: FloatTensor<B>, targets: IntTensor<B>) -> FloatTensor<B> {
    let rows = logits.shape()[0];
    let max = B::float_max_dim(B::float_detach(logits.clone()), 1);
    let exp = B::float_exp(B::float_sub(logits.clone(), max.clone()));
    let lse = B::float_add(B::float_log(B::float_sum_dim(exp, 1)), max);
    let targets = B::int_reshape(targets, Shape::from([rows, 1]));
    let target = B::float_gather(1, logits, targets);
    let nll = B::float_sub(lse.clone(), target);
    let flat = [nll, lse].map(|x| B::float_reshape(x, Shape::from([1, rows])));
    B::float_cat(flat.into(), 0)
}

/// `softmax·(d nll + d lse) − onehot·d nll`, from `both`, what the forward pass gave, and `upstream`, its gradient.
pub(crate) fn backward<B: Backend>(
    logits: FloatTensor<B>,
    targets: IntTensor<B>,
    both: FloatTensor<B>,
    upstream: FloatTensor<B>,
) -> FloatTensor<B> {
    let rows = logits.shape()[0];
    let row = |x: &FloatTensor<B>, at: usize| {
        let slices = [Slice::from(at..at + 1), Slice::from(0..rows)];
        let row = B::float_slice(x.clone(), &slices);
        B::float_reshape(row, Shape::from([rows, 1]))
    };
    let softmax = B::float_exp(B::float_sub(logits, row(&both, 1)));
    let dnll = row(&upstream, 0);
    let sum = B::float_add(dnll.clone(), row(&upstream, 1));
    let dlogits = B::float_mul(softmax, sum);
    let targets = B::int_reshape(targets, Shape::from([rows, 1]));
    let dtarget = B::float_neg(dnll);
    B::float_scatter(1, dlogits, targets, dtarget, IndexingUpdateOp::Add)
}

pub(crate) fn differentiable<B: KernelOps, C: CheckpointStrategy>(
    logits: FloatTensor<Autodiff<B, C>>,
    targets: IntTensor<B>,
) -> FloatTensor<Autodiff<B, C>> {
    if reference_ops() {
        return forward::<Autodiff<B, C>>(logits, targets);
    }
    let nodes = [logits.node()];
    match CrossEntropy.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = prep.checkpoint(&logits);
            let both = B::cross_entropy(logits.into_primitive(), targets.clone());
            prep.finish((saved, targets, both.clone()), both)
        }
        OpsKind::UnTracked(prep) => prep.finish(B::cross_entropy(logits.into_primitive(), targets)),
    }
}

#[derive(Debug)]
struct CrossEntropy;

impl<B: KernelOps> Backward<B, 1> for CrossEntropy {
    type State = (NodeId, IntTensor<B>, FloatTensor<B>);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [node] = ops.parents;
        let upstream = grads.consume::<B>(&ops.node);
        let (logits, targets, both) = ops.state;
        let logits: FloatTensor<B> = checkpointer.retrieve_node_output(logits);
        if let Some(node) = node {
            let dlogits = B::cross_entropy_backward(logits, targets, both, upstream);
            grads.register::<B>(node.id, dlogits);
        }
    }
}
