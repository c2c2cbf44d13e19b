//! The gradients.

use burn::backend::TensorMetadata;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::IntDType;

use crate::attention::{self, AttentionSpec};
use crate::compose;
use crate::cross_entropy;
use crate::glu::{self, Gate};
use crate::groups::Groups;
use crate::head::{self, Head, HeadSpec, LossAndGradients};
use crate::norm::{self, NormSpec};
use crate::ops::KernelOps;
use crate::profile::Place;
use crate::project;
use crate::qkv::{self, Constants, QkvSpec};

impl<B: KernelOps, C: CheckpointStrategy> KernelOps for Autodiff<B, C> {
    fn grouped_matmul(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), weights.node()];
        match GroupedMatmul.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = (prep.checkpoint(&x), prep.checkpoint(&weights));
                let saved = (saved, groups.clone(), Place::here());
                let out = B::grouped_matmul(x.into_primitive(), weights.into_primitive(), groups);
                prep.finish(saved, out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::grouped_matmul(
                x.into_primitive(),
                weights.into_primitive(),
                groups,
            )),
        }
    }

    fn grouped_outer(
        x: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        groups: Groups,
    ) -> FloatTensor<Self> {
        // Only a backward pass calls it, on the backend below; composed, it has a gradient all the same.
        compose::grouped_outer::<Self>(x, dy, &groups)
    }

    fn dispatch(
        x: FloatTensor<Self>,
        rows: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let tokens = x.shape()[0];
        match DispatchRows
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let out = B::dispatch(x.into_primitive(), rows, places.clone());
                prep.finish((places, tokens, Place::here()), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::dispatch(x.into_primitive(), rows, places)),
        }
    }

    fn combine(
        y: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        rows: IntTensor<Self>,
        order: IntTensor<Self>,
        places: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        match Combine
            .prepare::<C>([y.node(), weights.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let routes = [rows.clone(), order.clone(), places.clone()];
                let saved = [prep.checkpoint(&y), prep.checkpoint(&weights)];
                let out = B::combine(
                    y.into_primitive(),
                    weights.into_primitive(),
                    rows,
                    order,
                    places,
                );
                prep.finish((saved, routes, Place::here()), out)
            }
            OpsKind::UnTracked(prep) => {
                let out = B::combine(
                    y.into_primitive(),
                    weights.into_primitive(),
                    rows,
                    order,
                    places,
                );
                prep.finish(out)
            }
        }
    }

    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        project::differentiable::<B, C>(x, weight)
    }

    fn norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        spec: NormSpec,
    ) -> FloatTensor<Self> {
        norm::differentiable::<B, C>(x, weight, bias, biased, spec)
    }

    fn qkv_norm_rope(
        qkv: FloatTensor<Self>,
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        spec: QkvSpec,
    ) -> FloatTensor<Self> {
        let weights = [query, key, value];
        qkv::differentiable::<B, C>(qkv, Constants { weights, cos, sin }, spec)
    }

    fn causal_attention(
        qkv: FloatTensor<Self>,
        documents: IntTensor<Self>,
        by_document: bool,
        spec: AttentionSpec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        attention::differentiable::<B, C>(qkv, documents, by_document, spec)
    }

    fn glu(h: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        glu::differentiable::<B, C>(h, gate)
    }

    fn gated(
        value: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        function: Gate,
    ) -> FloatTensor<Self> {
        glu::gated_differentiable::<B, C>(value, gate, function)
    }

    fn cross_entropy(logits: FloatTensor<Self>, targets: IntTensor<Self>) -> FloatTensor<Self> {
        cross_entropy::differentiable::<B, C>(logits, targets)
    }

    fn head_loss(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        biased: bool,
        targets: IntTensor<Self>,
        shares: FloatTensor<Self>,
        spec: HeadSpec,
        _gradients: bool,
    ) -> LossAndGradients<FloatTensor<Self>> {
        let bias = biased.then_some(bias);
        head::differentiable::<B, C>(x, Head { weight, bias }, targets, shares, spec)
    }

    fn top_k(scores: FloatTensor<Self>, k: usize, int: IntDType) -> IntTensor<Self> {
        B::top_k(scores.into_primitive(), k, int)
    }
}

#[derive(Debug)]
struct GroupedMatmul;

impl<B: KernelOps> Backward<B, 2> for GroupedMatmul {
    type State = ((NodeId, NodeId), Groups, Place);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [x_node, weights_node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let ((x, weights), groups, place) = ops.state;
        // Both are fetched in any case: each counts how often it still is to be.
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let weights: FloatTensor<B> = checkpointer.retrieve_node_output(weights);
        if let Some(node) = x_node {
            let transposed = B::float_swap_dims(weights, 1, 2);
            let rows = dy.clone();
            let dx = place.at(|| B::grouped_matmul(rows, transposed, groups.clone()));
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = weights_node {
            let dweights = place.at(|| B::grouped_outer(x, dy, groups));
            grads.register::<B>(node.id, dweights);
        }
    }
}

#[derive(Debug)]
struct DispatchRows;

impl<B: KernelOps> Backward<B, 1> for DispatchRows {
    type State = (IntTensor<B>, usize, Place);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x_node] = ops.parents;
        let dy = grads.consume::<B>(&ops.node);
        let (places, tokens, place) = ops.state;
        if let Some(node) = x_node {
            let dx = place.at(|| B::dispatch_backward(dy, places, tokens));
            grads.register::<B>(node.id, dx);
        }
    }
}

#[derive(Debug)]
struct Combine;

impl<B: KernelOps> Backward<B, 2> for Combine {
    type State = ([NodeId; 2], [IntTensor<B>; 3], Place);

    fn backward(
        self,
        ops: Ops<Self::State, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let upstream = grads.consume::<B>(&ops.node);
        let (saved, [rows, order, places], place) = ops.state;
        let [y, weights] =
            saved.map(|id| -> FloatTensor<B> { checkpointer.retrieve_node_output(id) });
        let (dy, dweights) =
            place.at(|| B::combine_backward(upstream, y, weights, rows, order, places));
        for (node, gradient) in ops.parents.into_iter().zip([dy, dweights]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
