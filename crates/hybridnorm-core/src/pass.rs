//! One forward pass: what its layers share (mask, rotary tables, key/value cache) and what they report.

use burn::nn::Linear;
use burn::tensor::{Bool, Device, FloatDType, Int, Tensor};
use hybridnorm_kernels::project;

use crate::attention::cache::KvCache;
use crate::attention::mask;
use crate::attention::rope::{RotaryConfig, RotaryTables};
use crate::probe::Probe;
use crate::trace::{Branch, Op, Place, Trace};

/// What a mask depends on: window, tokens before the first query, queries.
type MaskKey = (Option<usize>, usize, usize);
/// What rotary tables depend on: settings, head_dim, first position of each sequence (one where all have the same), positions.
type RotaryKey = (RotaryConfig, usize, Vec<usize>, usize);

/// Logits that exist at once where nobody says otherwise: 16 MiB in f32, or more if they are of fewer rows than [`FEWEST_ROWS`].
const LOGITS: usize = 1 << 22;
/// Rows below which the products of a slice with a large head would wait for memory.
const FEWEST_ROWS: usize = 512;
/// No slice has more than these logits, 128 MiB in f32.
const MOST_LOGITS: usize = 1 << 25;

/// Rows of logits that exist at once in a [loss](crate::Decoder::loss), of `rows` in all, each of `vocab`: what is `wanted`, or as many as make
/// 16 MiB in f32, but 512 where these are no more than 128 MiB.
pub fn logit_rows(wanted: Option<usize>, rows: usize, vocab: usize) -> usize {
    let vocab = vocab.max(1);
    let usual = (LOGITS / vocab).max(FEWEST_ROWS).min(MOST_LOGITS / vocab);
    wanted.unwrap_or(usual).clamp(1, rows.max(1))
}

/// What a token may attend to, beside "nothing after itself".
#[derive(Debug)]
enum Context {
    /// Everything before it.
    Causal,
    /// Everything before it in its own document; ids `[batch, seq]`.
    Documents(Box<Tensor<2, Int>>),
    /// Everything before it, including what the cache holds.
    Cached(KvCache),
}

/// The state of one forward pass through a stack of blocks; make a new one for the next. `R` is what a feed-forward layer reports.
///
/// ```
/// # use hybridnorm_core::Pass;
/// let mut pass = Pass::<()>::causal();                // plain training
/// let mut pass = Pass::<()>::causal().traced();       // and keep every value
/// ```
#[derive(Debug)]
pub struct Pass<R = ()> {
    context: Context,
    masks: Vec<(MaskKey, Tensor<4, Bool>)>,
    rotary: Vec<(RotaryKey, RotaryTables)>,
    trace: Option<Trace>,
    probe: Option<Probe>,
    layer: Option<usize>,
    branch: Option<Branch>,
    noise: Option<u64>,
    products: Option<FloatDType>,
    logit_rows: Option<usize>,
    /// What the feed-forward layers reported, in layer order.
    pub reports: Vec<R>,
}

impl<R> Pass<R> {
    /// Every token attends to itself and all tokens before it.
    pub fn causal() -> Self {
        Self::new(Context::Causal)
    }

    /// As [`causal`](Self::causal), but never across documents.
    ///
    /// # Shapes
    /// - `documents` `[batch, seq]`: the number of the document each token belongs to
    pub fn documents(documents: Tensor<2, Int>) -> Self {
        Self::new(Context::Documents(Box::new(documents)))
    }

    /// Continues the sequence that `cache` holds; get it back with [`into_cache`](Self::into_cache).
    ///
    /// A forward pass panics when its tokens do not fit: ask [`KvCache::check_room`] first.
    pub fn cached(cache: KvCache) -> Self {
        Self::new(Context::Cached(cache))
    }

    fn new(context: Context) -> Self {
        Self {
            context,
            masks: Vec::new(),
            rotary: Vec::new(),
            trace: None,
            probe: None,
            layer: None,
            branch: None,
            noise: None,
            products: None,
            logit_rows: None,
            reports: Vec::new(),
        }
    }

    /// Keeps every value, see [`into_trace`](Self::into_trace).
    #[must_use]
    pub fn traced(mut self) -> Self {
        self.trace = Some(Trace::default());
        self
    }

    /// Reports figures of every layer, see [`into_probe`](Self::into_probe); of a [`cached`](Self::cached) pass, only those of the
    /// embedding.
    #[must_use]
    pub fn probed(mut self) -> Self {
        self.probe = Some(Probe::default());
        self
    }

    /// Lets layers add the noise that they are configured for, drawn from `seed`. Without it a pass is a function of its input.
    #[must_use]
    pub fn with_noise(mut self, seed: u64) -> Self {
        self.noise = Some(seed);
        self
    }

    /// Multiplies matrices in `dtype`, where `Some`: both factors are rounded to it and the product is rounded back, as are gradients on
    /// their way. Everything else stays in the type of its input: parameters, norms, rotations, softmax, routers, the residual stream.
    #[must_use]
    pub fn with_products(mut self, dtype: Option<FloatDType>) -> Self {
        self.products = dtype;
        self
    }

    /// The type that matrices are multiplied in; `None` for that of the factors.
    pub fn products(&self) -> Option<FloatDType> {
        self.products
    }

    /// Lets [`Decoder::loss`](crate::Decoder::loss) have `rows` rows of logits at once; `None` for [so many](logit_rows).
    #[must_use]
    pub fn with_logit_rows(mut self, rows: Option<usize>) -> Self {
        self.logit_rows = rows;
        self
    }

    /// Rows of logits that a loss has at once, of `rows` in all, each of `vocab`.
    pub fn logit_rows(&self, rows: usize, vocab: usize) -> usize {
        logit_rows(self.logit_rows, rows, vocab)
    }

    /// `layer` on `x`, its product in [the type](Self::with_products) of this pass, its bias added in that of `x`.
    ///
    /// # Shapes
    /// - `x` `[.., d_in]`, output `[.., d_out]`
    pub fn linear<const D: usize>(&self, layer: &Linear, x: Tensor<D>) -> Tensor<D> {
        let out = self.product(x, layer.weight.val(), project);
        match &layer.bias {
            Some(bias) => out + bias.val().unsqueeze(),
            None => out,
        }
    }

    /// `a·b`, in [the type](Self::with_products) of this pass.
    pub fn matmul<const D: usize>(&self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        self.product(a, b, Tensor::matmul)
    }

    /// A product of `a` and `b` by any other rule, in [the type](Self::with_products) of this pass.
    pub fn product<const A: usize, const B: usize>(
        &self,
        a: Tensor<A>,
        b: Tensor<B>,
        rule: impl FnOnce(Tensor<A>, Tensor<B>) -> Tensor<A>,
    ) -> Tensor<A> {
        let Some(dtype) = self.products else {
            return rule(a, b);
        };
        let back = a.dtype();
        rule(a.cast(dtype), b.cast(dtype)).cast(back)
    }

    /// Whether every value is kept.
    pub(crate) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Whether attention is to report of itself.
    pub(crate) fn is_probed(&self) -> bool {
        self.probe.is_some() && !matches!(self.context, Context::Cached(_))
    }

    pub(crate) fn probe_mut(&mut self) -> Option<&mut Probe> {
        self.probe.as_mut()
    }

    /// The trace, for as long as values are computed that are not the pass's own.
    pub(crate) fn take_trace(&mut self) -> Option<Trace> {
        self.trace.take()
    }

    /// What [`take_trace`](Self::take_trace) took.
    pub(crate) fn put_trace(&mut self, trace: Option<Trace>) {
        self.trace = trace;
    }

    /// The number of the document that each token belongs to, `[batch, seq]`, where they are kept apart.
    pub(crate) fn document_numbers(&self) -> Option<Tensor<2, Int>> {
        match &self.context {
            Context::Documents(documents) => Some((**documents).clone()),
            Context::Causal | Context::Cached(_) => None,
        }
    }

    /// The seed of the noise, if this pass is to have any.
    pub fn noise(&self) -> Option<u64> {
        self.noise
    }

    /// The block that is being computed, from 0; `None` outside a decoder's blocks.
    pub fn layer(&self) -> Option<usize> {
        self.layer
    }

    /// The values, if this pass was [`traced`](Self::traced).
    pub fn into_trace(self) -> Option<Trace> {
        self.trace
    }

    /// The figures of every layer, if this pass was [`probed`](Self::probed).
    pub fn into_probe(self) -> Option<Probe> {
        self.probe
    }

    /// The cache, extended by this pass's tokens, if it was [`cached`](Self::cached).
    pub fn into_cache(self) -> Option<KvCache> {
        match self.context {
            Context::Cached(cache) => Some(cache),
            Context::Causal | Context::Documents(_) => None,
        }
    }

    pub(crate) fn cache_mut(&mut self) -> Option<&mut KvCache> {
        match &mut self.context {
            Context::Cached(cache) => Some(cache),
            Context::Causal | Context::Documents(_) => None,
        }
    }

    /// Tokens that lie before this pass's first one.
    pub(crate) fn offset(&self) -> usize {
        match &self.context {
            Context::Cached(cache) => cache.len(),
            Context::Causal | Context::Documents(_) => 0,
        }
    }

    /// The position of the first query of each sequence; one number where all have the same.
    fn first_positions(&self) -> Vec<usize> {
        let offset = self.offset();
        match &self.context {
            Context::Cached(cache) if !cache.starts().is_empty() => {
                cache.starts().iter().map(|start| offset - start).collect()
            }
            _ => vec![offset],
        }
    }

    /// Where attention is forbidden, `[1 or batch, 1, n_query, n_key]`; made once for each window size.
    pub(crate) fn mask(
        &mut self,
        window: Option<usize>,
        n_query: usize,
        device: &Device,
    ) -> Tensor<4, Bool> {
        let key = (window, self.offset(), n_query);
        if let Some((_, mask)) = self.masks.iter().find(|(known, _)| *known == key) {
            return mask.clone();
        }
        let mut mask = mask::causal(n_query, self.offset(), window, device);
        match &self.context {
            Context::Documents(documents) => {
                let documents = (**documents).clone();
                mask = mask.bool_or(mask::across_documents(documents.clone(), documents));
            }
            Context::Cached(cache) if !cache.starts().is_empty() => {
                let [_, _, _, n_key] = mask.dims();
                mask = mask.bool_or(mask::before(cache.starts(), n_key, device));
            }
            Context::Causal | Context::Cached(_) => {}
        }
        self.masks.push((key, mask.clone()));
        mask
    }

    /// Where the `n_query` queries from `start` on may not attend, `[1 or batch, 1, n_query, start + n_query]`, in a pass without a
    /// cache; not kept.
    pub(crate) fn mask_of(
        &self,
        window: Option<usize>,
        start: usize,
        n_query: usize,
        device: &Device,
    ) -> Tensor<4, Bool> {
        let mask = mask::causal(n_query, start, window, device);
        let Some(documents) = self.document_numbers() else {
            return mask;
        };
        let query = documents.clone().narrow(1, start, n_query);
        let key = documents.narrow(1, 0, start + n_query);
        mask.bool_or(mask::across_documents(query, key))
    }

    /// The rotary tables for this pass's positions; made once for each rotary configuration.
    pub(crate) fn rotary(
        &mut self,
        config: &RotaryConfig,
        head_dim: usize,
        n_query: usize,
        device: &Device,
    ) -> RotaryTables {
        let key = (config.clone(), head_dim, self.first_positions(), n_query);
        if let Some((_, tables)) = self.rotary.iter().find(|(known, _)| *known == key) {
            return tables.clone();
        }
        let tables = RotaryTables::of_rows(config, head_dim, &key.2, n_query, device);
        self.rotary.push((key, tables.clone()));
        tables
    }

    /// Keeps `value` as the result of `op` if this pass is traced, and hands it on. A feed-forward layer of one's own does this with
    /// what it wants verified.
    pub fn keep<const D: usize>(&mut self, op: Op, value: Tensor<D>) -> Tensor<D> {
        if let Some(trace) = &mut self.trace {
            let place = Place {
                layer: self.layer,
                branch: self.branch,
                op,
            };
            trace.push(place, value.clone());
        }
        value
    }

    /// Reports the stream before the first block or behind one, if this pass is probed.
    pub(crate) fn observe(&mut self, x: &Tensor<3>) {
        if let Some(probe) = &mut self.probe {
            probe.add_stream(x.clone());
        }
    }

    /// Says that a block begins, or with `None` that the last one has ended.
    pub(crate) fn enter_layer(&mut self, layer: Option<usize>) {
        (self.layer, self.branch) = (layer, None);
    }

    /// Says that a sublayer begins.
    pub(crate) fn enter_branch(&mut self, branch: Branch) {
        self.branch = Some(branch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_of_logits_are_bounded() {
        assert_eq!(logit_rows(None, 2048, 320), 2048);
        assert_eq!(logit_rows(None, 2048, 4096), 1024);
        assert_eq!(logit_rows(None, 4096, 50_304), 512);
        assert_eq!(logit_rows(None, 4096, 262_144), 128);
        assert_eq!(logit_rows(Some(100), 4096, 320), 100);
        assert_eq!(logit_rows(Some(100), 7, 320), 7);
        assert_eq!(logit_rows(None, 7, 1 << 30), 1);
    }
}
