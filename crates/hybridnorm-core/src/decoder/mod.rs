//! A decoder-only language model: embedding, blocks, final norm, head.

mod build;
mod config;

use burn::module::Module;
use burn::nn::{Embedding, Linear};
use burn::tensor::{Bool, DType, Int, Tensor};
use hybridnorm_kernels::profile::in_layer;
use hybridnorm_kernels::{HeadSpec, head_loss, project, softcap};

use crate::attention::cache::KvCache;
use crate::block::Block;
use crate::feed_forward::{DenseFeedForward, FeedForward};
use crate::norm::Norm;
use crate::pass::Pass;
use crate::trace::Op;

pub use config::DecoderConfig;

/// A decoder-only language model. Built by [`DecoderConfig::init`].
#[derive(Module, Debug)]
pub struct Decoder<F: FeedForward = DenseFeedForward> {
    /// Token embedding `[padded_vocab_size, d_model]`.
    pub embedding: Embedding,
    /// Norm after the embedding.
    pub embedding_norm: Option<Norm>,
    /// The blocks.
    pub blocks: Vec<Block<F>>,
    /// Norm before the head.
    pub final_norm: Option<Norm>,
    /// The head `[d_model, padded_vocab_size]`; absent when tied to the embedding.
    pub head: Option<Linear>,
    #[module(skip)]
    embedding_scale: Option<f64>,
    #[module(skip)]
    logit_scale: Option<f64>,
    #[module(skip)]
    logit_softcap: Option<f64>,
}

impl<F: FeedForward> Decoder<F> {
    /// Logits of the token after each position.
    ///
    /// # Shapes
    /// - `tokens` `[batch, seq]`
    /// - output `[batch, seq, padded_vocab_size]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.forward_in(tokens, &mut Pass::causal())
    }

    /// As [`forward`](Self::forward), in a pass of the caller's: document masking, a cache, a trace.
    pub fn forward_in(&self, tokens: Tensor<2, Int>, pass: &mut Pass<F::Report>) -> Tensor<3> {
        let hidden = self.hidden(tokens, pass);
        let logits = self.logits_in(hidden, pass);
        pass.keep(Op::Logits, logits)
    }

    /// Logits of the token after the last of `tokens`, which continue the sequences that `cache` holds. The cache holds them too afterwards.
    ///
    /// # Shapes
    /// - `tokens` `[batch, new]`
    /// - output `[batch, padded_vocab_size]`
    ///
    /// # Panics
    /// When there are no tokens, or they do not fit: ask [`KvCache::check_room`] first.
    pub fn next_logits(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<2> {
        let [_, new] = tokens.dims();
        let mut pass = Pass::cached(std::mem::replace(cache, KvCache::new(0, 0)));
        let hidden = self.hidden(tokens, &mut pass);
        let logits = self.logits_in(hidden.narrow(1, new - 1, 1), &pass);
        if let Some(extended) = pass.into_cache() {
            *cache = extended;
        }
        logits.squeeze_dim(1)
    }

    /// The stream before the head.
    ///
    /// # Shapes
    /// - `tokens` `[batch, seq]`
    /// - output `[batch, seq, d_model]`
    pub fn hidden(&self, tokens: Tensor<2, Int>, pass: &mut Pass<F::Report>) -> Tensor<3> {
        let [_, seq] = tokens.dims();
        let mut x = self.embed(tokens, pass);
        for layer in 0..self.blocks.len() {
            x = self.forward_block(layer, x, pass);
        }
        if let Some(cache) = pass.cache_mut() {
            cache.advance(seq);
        }
        self.normalise(x, pass)
    }

    /// The stream before the first block: what [`hidden`](Self::hidden) begins with.
    ///
    /// # Shapes
    /// - `tokens` `[batch, seq]`
    /// - output `[batch, seq, d_model]`
    pub fn embed(&self, tokens: Tensor<2, Int>, pass: &mut Pass<F::Report>) -> Tensor<3> {
        let mut x = self.embedding.forward(tokens);
        if let Some(scale) = self.embedding_scale {
            x = x * scale;
        }
        x = pass.keep(Op::Embedding, x);
        if let Some(norm) = &self.embedding_norm {
            x = pass.keep(Op::EmbeddingNorm, norm.forward(x));
        }
        pass.observe(&x);
        x
    }

    /// Block `layer`, from 0, on the stream before it.
    ///
    /// # Shapes
    /// - input and output `[batch, seq, d_model]`
    ///
    /// # Panics
    /// When there is no such block.
    pub fn forward_block(
        &self,
        layer: usize,
        x: Tensor<3>,
        pass: &mut Pass<F::Report>,
    ) -> Tensor<3> {
        pass.enter_layer(Some(layer));
        let x = in_layer(layer, || self.blocks[layer].forward(x, pass));
        pass.observe(&x);
        pass.enter_layer(None);
        x
    }

    /// The final norm on the stream behind the last block: what [`hidden`](Self::hidden) ends with.
    ///
    /// # Shapes
    /// - input and output `[batch, seq, d_model]`
    pub fn normalise(&self, x: Tensor<3>, pass: &mut Pass<F::Report>) -> Tensor<3> {
        match &self.final_norm {
            Some(norm) => pass.keep(Op::FinalNorm, norm.forward(x)),
            None => x,
        }
    }

    /// The head.
    ///
    /// # Shapes
    /// - `hidden` `[batch, seq, d_model]`
    /// - output `[batch, seq, padded_vocab_size]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.logits_in(hidden, &Pass::causal())
    }

    /// As [`logits`](Self::logits), in a pass of the caller's.
    pub fn logits_in(&self, hidden: Tensor<3>, pass: &Pass<F::Report>) -> Tensor<3> {
        let [batch, seq, d_model] = hidden.dims();
        let hidden = hidden.reshape([batch * seq, d_model]);
        let logits = match &self.head {
            Some(head) => pass.linear(head, hidden),
            None => pass.product(hidden, self.embedding.weight.val().transpose(), project),
        };
        let [_, vocab] = logits.dims();
        let mut logits = logits.reshape([batch, seq, vocab]);
        if let Some(scale) = self.logit_scale {
            logits = logits * scale;
        }
        if let Some(cap) = self.logit_softcap {
            logits = softcap(logits, cap);
        }
        logits
    }

    /// Mean cross-entropy, in nats per token, of the head's logits on `hidden` against the tokens that follow. The logits are computed, and
    /// differentiated, [a slice of rows](Pass::with_logit_rows) at a time: those of all rows never exist.
    ///
    /// # Shapes
    /// - `hidden` `[batch, seq, d_model]`: what [`hidden`](Self::hidden) gives
    /// - `targets` `[batch, seq]`: the token after each position; below the vocabulary's size also where ignored
    /// - `ignored` `[batch, seq]`: true where a target costs nothing; it stays in the divisor, as it does for the authors (paper.md §3.4)
    /// - output `[1]`, in f32, or f64 where the model is
    pub fn loss(
        &self,
        hidden: Tensor<3>,
        targets: Tensor<2, Int>,
        ignored: Option<Tensor<2, Bool>>,
        pass: &Pass<F::Report>,
    ) -> Tensor<1> {
        let [batch, seq, d_model] = hidden.dims();
        let rows = batch * seq;
        let (weight, bias) = match &self.head {
            Some(head) => (head.weight.val(), head.bias.as_ref().map(|bias| bias.val())),
            None => (self.embedding.weight.val().transpose(), None),
        };
        let [_, vocab] = weight.dims();
        let dtype = match hidden.dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let shares = Tensor::full([rows], 1.0 / rows as f64, (&hidden.device(), dtype));
        let shares = match ignored {
            Some(ignored) => shares.mask_fill(ignored.reshape([rows]), 0.0),
            None => shares,
        };
        let spec = HeadSpec {
            scale: self.logit_scale.unwrap_or(1.0),
            softcap: self.logit_softcap,
            rows: pass.logit_rows(rows, vocab),
            products: pass.products(),
        };
        let hidden = hidden.reshape([rows, d_model]);
        head_loss(hidden, weight, bias, targets.reshape([rows]), shares, spec)
    }

    /// An empty cache for this model and at most `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        KvCache::new(self.blocks.len(), capacity)
    }
}
