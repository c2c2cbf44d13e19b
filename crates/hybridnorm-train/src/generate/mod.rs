//! Text from a model: a key/value cache, sampling, and streaming that never cuts a character in two.

mod sampling;
mod stream;

use crate::data::{DataError, Tokenizer};
use burn::tensor::{Device, Int, Tensor, TensorData, TensorReadError};
use hybridnorm_core::{ConfigError, Decoder, FeedForward, KvCache, Pass};
use sampling::argmax;
pub use sampling::{Sampler, Sampling};
use stream::TextStream;

/// Why no text could be generated.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// A sampling parameter is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer refused the prompt or the ids.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The device failed.
    #[error("the device failed while logits were read: {0}")]
    Device(#[from] TensorReadError),
}

/// A text in the making: feeds tokens to a model and gives the logits of the next.
///
/// The model never sees more than `window` tokens at once. When a text outgrows them, its older half is forgotten.
#[derive(Debug)]
pub struct Context<'a, F: FeedForward> {
    model: &'a Decoder<F>,
    device: Device,
    window: usize,
    held: Vec<u32>,
    cache: Option<KvCache>,
    use_cache: bool,
}

impl<'a, F: FeedForward> Context<'a, F> {
    /// An empty text for `model`, which sees at most `window` tokens at once.
    pub fn new(model: &'a Decoder<F>, window: usize) -> Self {
        Self {
            device: model.embedding.weight.val().device(),
            model,
            window: window.max(1),
            held: Vec::new(),
            cache: None,
            use_cache: true,
        }
    }

    /// Computes everything anew for each token, as a check on the cache.
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        self.use_cache = false;
        self
    }

    /// Appends `ids` and returns the logits of the token after them, `[padded_vocab_size]`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn feed(&mut self, ids: &[u32]) -> Result<Vec<f32>, GenerateError> {
        self.held.extend_from_slice(ids);
        if self.held.len() > self.window {
            let forgotten = self.held.len() - self.window.div_ceil(2);
            self.held.drain(..forgotten);
            self.cache = None;
        }
        let known = self.cache.as_ref().map_or(0, KvCache::len);
        let fresh: Vec<i64> = self.held[known..].iter().map(|&id| i64::from(id)).collect();
        let n = fresh.len();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(fresh, [1, n]), &self.device);
        let mut pass = match self.use_cache {
            true => {
                let cache = self.cache.take();
                Pass::cached(cache.unwrap_or_else(|| self.model.new_cache(self.window)))
            }
            false => Pass::causal(),
        };
        let hidden = self.model.hidden(tokens, &mut pass);
        self.cache = pass.into_cache();
        let logits = self.model.logits(hidden.narrow(1, n - 1, 1));
        Ok(logits.flatten::<1>(0, 2).try_into_vec_as()?)
    }
}

/// The `n` most likely tokens after `prompt`, one after the other, among the first `vocab_width` logits.
///
/// # Errors
/// When the device fails.
pub fn greedy<F: FeedForward>(
    model: &Decoder<F>,
    prompt: &[u32],
    n: usize,
    use_cache: bool,
    vocab_width: usize,
) -> Result<Vec<u32>, GenerateError> {
    let context = Context::new(model, prompt.len() + n);
    let mut context = match use_cache {
        true => context,
        false => context.without_cache(),
    };
    let mut found = Vec::with_capacity(n);
    let mut logits = context.feed(prompt)?;
    while found.len() < n {
        logits.truncate(vocab_width);
        let next = argmax(&logits) as u32;
        found.push(next);
        if found.len() < n {
            logits = context.feed(&[next])?;
        }
    }
    Ok(found)
}

/// What a text is generated with.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Text to continue; empty starts a document.
    pub prompt: &'a str,
    /// Tokens to generate at most; an end of document ends the text earlier.
    pub tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Tokens the model sees at once.
    pub window: usize,
}

/// Continues a prompt and hands each piece of text to `emit`, which stops everything by returning `false`. Returns
/// the number of tokens generated.
///
/// # Errors
/// When a parameter is out of range, the tokenizer refuses the prompt, or the device fails.
pub fn generate<F: FeedForward>(
    model: &Decoder<F>,
    tokenizer: &Tokenizer,
    request: Request<'_>,
    mut emit: impl FnMut(&str) -> bool,
) -> Result<usize, GenerateError> {
    let mut sampler = Sampler::new(request.sampling)?;
    let end = tokenizer.end_of_document()?;
    let mut ids = vec![end];
    ids.extend(tokenizer.encode(request.prompt)?);
    let mut context = Context::new(model, request.window);
    let mut text = TextStream::new(tokenizer);
    for done in 0..request.tokens {
        let mut logits = context.feed(&ids)?;
        // The rows beyond the vocabulary stand for no token.
        logits.truncate(tokenizer.vocab_size());
        let next = sampler.pick(&logits) as u32;
        if next == end {
            emit(&text.finish()?);
            return Ok(done);
        }
        if !emit(&text.push(next)?) {
            return Ok(done + 1);
        }
        ids = vec![next];
    }
    emit(&text.finish()?);
    Ok(request.tokens)
}

#[cfg(test)]
mod tests {
    use hybridnorm_core::DecoderConfig;
    use hybridnorm_moe::{ModelConfig, SparseConfig};
    use hybridnorm_testing::{apply, every_device};

    use super::*;

    #[apply(every_device!)]
    fn the_cache_changes_nothing(#[case] device: &Device) {
        let model = DecoderConfig::new(40, 32, 4, 3).init(device).unwrap();
        let with = greedy(&model, &[1, 2, 3], 12, true, 40).unwrap();
        let without = greedy(&model, &[1, 2, 3], 12, false, 40).unwrap();
        assert_eq!(with, without);
        assert_eq!(with.len(), 12);
    }

    #[apply(every_device!)]
    fn the_cache_changes_nothing_in_a_sparse_model(#[case] device: &Device) {
        let config = ModelConfig {
            decoder: DecoderConfig::new(40, 32, 4, 3),
            sparse: Some(SparseConfig::new(4, 2, 24)),
        };
        let model = config.init(device).unwrap();
        let with = greedy(&model, &[1, 2, 3], 12, true, 40).unwrap();
        let without = greedy(&model, &[1, 2, 3], 12, false, 40).unwrap();
        assert_eq!(with, without);
    }

    #[apply(every_device!)]
    fn a_text_may_outgrow_its_window(#[case] device: &Device) {
        let model = DecoderConfig::new(40, 32, 4, 1).init(device).unwrap();
        let mut context = Context::new(&model, 8);
        for id in 0..30 {
            assert_eq!(context.feed(&[id]).unwrap().len(), 40);
            assert!(context.held.len() <= 8);
        }
        assert_eq!(context.feed(&[1; 20]).unwrap().len(), 40);
    }
}
