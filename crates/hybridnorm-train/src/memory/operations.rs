//! What each operation of a forward pass keeps until its gradient is computed: the table to change when an operation changes.
//!
//! Read off the forward passes in `hybridnorm-core` and `hybridnorm-moe`, off what the fused operations of `hybridnorm-kernels` save, and
//! off what burn-autodiff 0.22.1 saves for each of Burn's operations: a product its factors, a root, an exponential, a sigmoid their
//! input, sums and casts nothing. Reshapes and slices are
//! views, so what two operations keep of one tensor is counted once, where it is kept first. `tests/memory.rs` holds the sums against
//! measured peaks.

use hybridnorm_core::{Activation, DecoderConfig, LayerNorms, NormKind, NormSite, NormSpan};
use hybridnorm_moe::SparseConfig;

/// Tensors that a capped head's composition has at once beside the logits, each as large as they are.
const SOFTCAP: f64 = 8.0;

/// One operation, in floats for each token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Operation {
    /// What it is.
    pub name: &'static str,
    /// Kept from the forward pass until its gradient is computed.
    pub kept: f64,
    /// What else exists while its gradient is computed.
    pub working: f64,
}

impl Operation {
    const fn new(name: &'static str, kept: f64, working: f64) -> Self {
        Self {
            name,
            kept,
            working,
        }
    }
}

/// What the sizes below are taken from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table<'a> {
    /// The model.
    pub decoder: &'a DecoderConfig,
    /// Floats that one factor of a product takes: 1, or ½ where products are in bf16.
    pub product: f64,
}

impl Table<'_> {
    /// The operations of one block in the order of its forward pass.
    pub fn block(&self, norms: &LayerNorms, sparse: Option<&SparseConfig>) -> Vec<Operation> {
        let stream = |wanted: bool| wanted.then(|| self.norm());
        let (a, f) = (&norms.attention, &norms.feed_forward);
        let mut all = Vec::new();
        all.extend([a.stream, a.input].into_iter().filter_map(stream));
        self.attention(norms, &mut all);
        all.extend([a.output, a.after].into_iter().filter_map(stream));
        all.extend([f.stream, f.input].into_iter().filter_map(stream));
        match sparse {
            Some(sparse) => self.sparse(sparse, &mut all),
            None => self.dense(self.decoder.d_ff, self.decoder.activation, &mut all),
        }
        all.extend([f.output, f.after].into_iter().filter_map(stream));
        all
    }

    /// A norm over the stream.
    pub fn norm(&self) -> Operation {
        let width = self.decoder.d_model as f64;
        Operation::new("norm", width, 2.0 * width)
    }

    /// The head on one row, and its loss.
    pub fn head(&self) -> [Operation; 2] {
        let model = self.decoder;
        let vocab = model.padded_vocab_size as f64;
        let biased = !model.tied && model.head_bias.unwrap_or(model.bias);
        let loss = match biased || self.product != 1.0 {
            // The logits, which become their gradient where they are.
            false => Operation::new("loss", vocab, 0.0),
            true => {
                let capped = model.logit_softcap.map_or(0.0, |_| SOFTCAP * vocab);
                Operation::new("loss", capped + vocab, vocab)
            }
        };
        [self.linear("head", model.d_model), loss]
    }

    /// A product with a matrix of `inputs` rows.
    fn linear(&self, name: &'static str, inputs: usize) -> Operation {
        Operation::new(name, self.product * inputs as f64, 0.0)
    }

    fn attention(&self, norms: &LayerNorms, all: &mut Vec<Operation>) {
        let model = self.decoder;
        let sites = &norms.qkv;
        let (query, key) = (
            (model.n_heads * model.head_dim()) as f64,
            (model.n_kv_heads * model.head_dim()) as f64,
        );
        let heads = [
            ("query norm", sites.query, model.n_heads),
            ("key norm", sites.key, model.n_kv_heads),
            ("value norm", sites.value, model.n_kv_heads),
        ];
        all.push(self.linear("query, key and value", model.d_model));
        let all_heads = query + 2.0 * key;
        // Norms that are operations of their own: over the full width they keep a copy, over heads a view of the projection. What they give
        // is joined then.
        let own = heads.map(|(name, site, heads)| {
            let site = site.filter(|_| !self.norms_are_within_rotation())?;
            Some((name, site, heads))
        });
        let per_head = |site: NormSite| site.span == NormSpan::PerHead;
        if own.iter().flatten().any(|(_, site, _)| per_head(*site)) {
            all.push(Operation::new("projection", all_heads, 0.0));
        }
        for (name, site, heads) in own.into_iter().flatten() {
            all.push(self.head_norm(name, heads, !per_head(site)));
        }
        if model.clip_normed {
            all.push(Operation::new("clipping", all_heads, 0.0));
        }
        // The projection, and normed and rotated; in the backward pass the gradients of the latter, of the output, and of the keys and values
        // that each query head saw.
        all.push(Operation::new("norms and rotation", all_heads, all_heads));
        let kept = all_heads + 2.0 * model.n_heads as f64;
        all.push(Operation::new("attention", kept, all_heads + 3.0 * query));
        if sites.context.is_some() {
            all.push(self.head_norm("context norm", model.n_heads, true));
        }
        all.push(self.linear("attention output", model.n_heads * model.head_dim()));
    }

    /// Whether the norms are part of the operation that rotates: see `attention/fused.rs` of `hybridnorm-core`.
    fn norms_are_within_rotation(&self) -> bool {
        let style = &self.decoder.norm;
        style.kind == NormKind::Rms && !style.bias && !self.decoder.clip_normed
    }

    /// A norm inside attention; `owns` where its input is kept by nothing else.
    fn head_norm(&self, name: &'static str, heads: usize, owns: bool) -> Operation {
        let width = (heads * self.decoder.head_dim()) as f64;
        Operation::new(name, if owns { width } else { 0.0 }, 2.0 * width)
    }

    fn dense(&self, d_ff: usize, activation: Activation, all: &mut Vec<Operation>) {
        let width = d_ff as f64;
        // In widths: the input projection, value and gate where there is one; for GELU without a gate what its parts keep.
        let (kept, working) = match (activation.gate(), activation) {
            (Some(_), _) => (2.0, 3.0),
            (None, Activation::Relu) => (1.0, 1.0),
            (None, _) => (3.0, 2.0),
        };
        let streams = 2.0 * self.decoder.d_model as f64;
        all.push(self.linear("feed-forward input", self.decoder.d_model));
        all.push(Operation::new(
            "activation",
            kept * width,
            working * width + streams,
        ));
        all.push(self.linear("feed-forward output", d_ff));
    }

    fn sparse(&self, sparse: &SparseConfig, all: &mut Vec<Operation>) {
        let stream = self.decoder.d_model as f64;
        let (experts, copies) = (sparse.router.n_experts as f64, sparse.router.top_k as f64);
        let width = copies * sparse.d_ff as f64;
        // The router's product is always in f32. Logits, probabilities and what softmax and z-loss keep; weights and choices.
        let routing = 6.0 * experts + 4.0 * copies;
        all.push(Operation::new("router", stream + routing, 0.0));
        // A copy of the token for each of its experts, factor of two products, and the ways there and back.
        let dispatched = copies * stream + 3.0 * copies;
        all.push(Operation::new("dispatch", dispatched, 0.0));
        // Value and gate in tensors of their own; in the backward pass their gradients.
        let working = 2.0 * width + 2.0 * stream;
        all.push(Operation::new("experts", 2.0 * width, working));
        let down = self.product * width;
        all.push(Operation::new("experts' output", down, 0.0));
        all.push(Operation::new("combine", copies * stream + copies, 0.0));
        if let Some(d_ff) = sparse.shared_d_ff {
            self.dense(d_ff, sparse.activation, all);
        }
    }
}
