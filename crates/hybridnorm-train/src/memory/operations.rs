//! What each operation of a forward pass keeps until its gradient is computed: the table to change when an operation changes.
//!
//! Read off the forward passes in `hybridnorm-core` and `hybridnorm-moe`, off what the fused operations of `hybridnorm-kernels` save, and
//! off what burn-autodiff 0.22.1 saves for each of Burn's operations: a product its factors, a root, an exponential, a sigmoid their
//! input, sums and casts nothing. Reshapes and slices are
//! views, so what two operations keep of one tensor is counted once, where it is kept first. `tests/memory.rs` holds the sums against
//! measured peaks.

use hybridnorm_core::{
    Activation, DecoderConfig, LayerNorms, NormKind, NormSite, NormSpan, NormStyle,
};
use hybridnorm_moe::SparseConfig;

/// Tensors that [`Softcap`](hybridnorm_core::DecoderConfig::attention_softcap) keeps, each as large as its input.
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
    /// Tokens in a sequence.
    pub seq: usize,
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

    /// A norm over the stream, its scale included.
    pub fn norm(&self) -> Operation {
        let width = self.decoder.d_model as f64;
        let style = &self.decoder.norm;
        if is_fused(style) && style.affine {
            return Operation::new("norm", width, 2.0 * width);
        }
        let scaled = if style.affine { width } else { 0.0 };
        // The input of RMSNorm, the centred one of LayerNorm; the mean square, its root and that one's inverse.
        Operation::new("norm", width + scaled + 3.0, 2.0 * width)
    }

    /// The head on one row, and its loss.
    pub fn head(&self) -> [Operation; 2] {
        let model = self.decoder;
        let vocab = model.padded_vocab_size as f64;
        let biased = !model.tied && model.head_bias.unwrap_or(model.bias);
        let loss = match model.logit_softcap {
            // The logits, which become their gradient where they are.
            None if !biased && self.product == 1.0 => Operation::new("loss", vocab, 0.0),
            cap => {
                let capped = cap.map_or(0.0, |_| SOFTCAP * vocab);
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
        let scores = (model.n_heads * self.seq) as f64;
        all.push(self.linear("query, key and value", model.d_model));
        if self.is_attention_fused(norms) {
            let all_heads = query + 2.0 * key;
            // The projection as it was, and normed and rotated; in the backward pass the gradients of the latter, of the output, and of the
            // keys and values that each query head saw.
            all.push(Operation::new("norms and rotation", all_heads, all_heads));
            let kept = all_heads + model.n_heads as f64;
            all.push(Operation::new("attention", kept, all_heads + 3.0 * query));
            if let Some(site) = sites.context {
                all.push(self.head_norm("context norm", site, model.n_heads, true));
            }
            all.push(self.linear("attention output", model.n_heads * model.head_dim()));
            return;
        }
        // All three are views of one tensor, which stays as long as one of them does.
        let per_head = |site: Option<NormSite>| site.is_some_and(|s| s.span == NormSpan::PerHead);
        let read = model.norm.kind == NormKind::Rms
            && [sites.query, sites.key, sites.value]
                .into_iter()
                .any(per_head);
        let bare_value = sites.value.is_none() && self.product == 1.0;
        if read || bare_value {
            all.push(Operation::new("projection", query + 2.0 * key, 0.0));
        }
        for (name, site, heads) in [
            ("query norm", sites.query, model.n_heads),
            ("key norm", sites.key, model.n_kv_heads),
            ("value norm", sites.value, model.n_kv_heads),
        ] {
            all.extend(site.map(|site| self.head_norm(name, site, heads, false)));
        }
        // Rotations keep nothing that grows with the batch. The products keep the rotated queries and keys, and the values.
        let value = if bare_value { 0.0 } else { key };
        let factors = self.product * (query + key + value);
        let capped = model.attention_softcap.map_or(0.0, |_| SOFTCAP * scores);
        all.push(Operation::new("scores", factors + capped, 0.0));
        // The shifted scores, their exponentials, and the weights as a factor of the product with the values.
        let softmax = (2.0 + self.product) * scores;
        all.push(Operation::new("softmax", softmax, scores));
        all.extend(
            sites
                .context
                .map(|site| self.head_norm("context norm", site, model.n_heads, true)),
        );
        all.push(self.linear("attention output", model.n_heads * model.head_dim()));
    }

    /// Whether attention is the two operations of `hybridnorm-kernels`: see `attention/fused.rs` of `hybridnorm-core`.
    pub fn is_attention_fused(&self, norms: &LayerNorms) -> bool {
        let model = self.decoder;
        let sites = [norms.qkv.query, norms.qkv.key, norms.qkv.value];
        let mut sites = sites.into_iter().flatten();
        let whole = model.attention_softcap.is_none() && !model.clip_normed;
        whole && sites.all(|site| is_fused(&model.norm) && site.span == NormSpan::PerHead)
    }

    /// A norm inside attention; `owns` where its input is kept by nothing else.
    fn head_norm(&self, name: &'static str, site: NormSite, heads: usize, owns: bool) -> Operation {
        let width = (heads * self.decoder.head_dim()) as f64;
        let groups = match site.span {
            NormSpan::PerHead => heads,
            NormSpan::FullWidth => 1,
        };
        // The input over the full width is a copy.
        let own =
            owns || site.span == NormSpan::FullWidth || self.decoder.norm.kind == NormKind::Layer;
        let scaled = site.affine && self.decoder.norm.attention_affine;
        if is_fused(&self.decoder.norm) && scaled {
            let kept = if own { width } else { 0.0 };
            return Operation::new(name, kept, 2.0 * width);
        }
        let tensors = f64::from(u8::from(own) + u8::from(scaled));
        Operation::new(name, tensors * width + 3.0 * groups as f64, 2.0 * width)
    }

    fn dense(&self, d_ff: usize, activation: Activation, all: &mut Vec<Operation>) {
        let width = d_ff as f64;
        // In widths: the input projection; for GELU what its parts keep.
        let (kept, working) = match activation {
            Activation::SwiGlu => (2.0, 3.0),
            Activation::GeGlu | Activation::GeGluExact => (5.0, 2.0),
            Activation::ReGlu => (3.0, 2.0),
            Activation::Gelu => (3.0, 2.0),
            Activation::Relu => (1.0, 1.0),
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
        // Gate and value in tensors of their own, what its function keeps, and the gate behind it.
        let kept = match sparse.activation {
            Activation::SwiGlu | Activation::Gelu => 4.0,
            Activation::GeGlu | Activation::GeGluExact => 5.0,
            Activation::ReGlu | Activation::Relu => 3.0,
        };
        let working = 2.0 * width + 2.0 * stream;
        all.push(Operation::new("experts", kept * width, working));
        let down = self.product * width;
        all.push(Operation::new("experts' output", down, 0.0));
        all.push(Operation::new("combine", copies * stream + copies, 0.0));
        if let Some(d_ff) = sparse.shared_d_ff {
            self.dense(d_ff, sparse.activation, all);
        }
    }
}

/// Whether `hybridnorm-kernels` norms by one operation, where there is a scale.
fn is_fused(style: &NormStyle) -> bool {
    style.kind == NormKind::Rms && !style.bias
}
