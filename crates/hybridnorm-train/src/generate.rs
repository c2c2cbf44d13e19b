//! Text from a model: a key/value cache, sampling, and streaming that never cuts a character in two.

use burn::tensor::{Device, Int, Tensor, TensorData, TensorReadError};
use hybridnorm_core::{ConfigError, Decoder, FeedForward, KvCache, Pass};
use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;

use crate::data::{DataError, Tokenizer};

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

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 always takes the most likely token.
    pub temperature: f64,
    /// Only this many of the most likely tokens are kept.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability are kept.
    pub top_p: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: None,
            top_p: Some(0.95),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses what cannot be sampled with.
    ///
    /// # Errors
    /// Names the parameter, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let allowed = "a finite number of at least 0";
            return Err(ConfigError::new("temperature", self.temperature, allowed));
        }
        if self.top_k == Some(0) {
            return Err(ConfigError::new("top_k", 0, "at least 1"));
        }
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => {
                Err(ConfigError::new("top_p", p, "above 0 and at most 1"))
            }
            _ => Ok(()),
        }
    }
}

/// Draws tokens as a [`Sampling`] says.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler at the start of its seed's stream.
    ///
    /// # Errors
    /// As [`Sampling::validate`].
    pub fn new(sampling: Sampling) -> Result<Self, ConfigError> {
        sampling.validate()?;
        Ok(Self {
            sampling,
            rng: ChaCha8Rng::seed_from_u64(sampling.seed),
        })
    }

    /// The index of the logit that is drawn.
    pub fn pick(&mut self, logits: &[f32]) -> usize {
        let Sampling {
            temperature,
            top_k,
            top_p,
            ..
        } = self.sampling;
        if temperature == 0.0 {
            return argmax(logits);
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(top_k.unwrap_or(usize::MAX));
        let Some(&best) = order.first() else {
            return 0;
        };
        let weight = |index: usize| (f64::from(logits[index] - logits[best]) / temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(|&index| weight(index)).collect();
        if let Some(p) = top_p {
            let enough = p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().take_while(|weight| {
                let open = sum < enough;
                sum += **weight;
                open
            });
            let kept = kept.count();
            weights.truncate(kept.max(1));
        }
        // 53 random bits: a number in 0..1, every one of them a double.
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * weights.iter().sum::<f64>();
        for (&index, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        best
    }
}

/// The index of the largest logit, the first of equals.
fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
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

/// Turns ids into text as they come. A tokenizer may spread one character over several ids, and may write an id
/// differently after another, so ids are decoded together with those before them and only whole characters given out.
#[derive(Debug)]
struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Ids before this one are out, and are decoded again only as context.
    given: usize,
}

impl<'a> TextStream<'a> {
    fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            given: 0,
        }
    }

    /// The text that `id` completes, perhaps none.
    fn push(&mut self, id: u32) -> Result<String, DataError> {
        self.ids.push(id);
        let fresh = self.fresh()?;
        // A character has at most four bytes: what is not one after four more ids never will be.
        if fresh.ends_with('\u{FFFD}') && self.ids.len() - self.given < 4 {
            return Ok(String::new());
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(fresh)
    }

    /// What is still held back.
    fn finish(&self) -> Result<String, DataError> {
        self.fresh()
    }

    fn fresh(&self) -> Result<String, DataError> {
        let before = self.tokenizer.decode(&self.ids[..self.given])?;
        let all = self.tokenizer.decode(&self.ids)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> Sampler {
        let seed = 1;
        Sampler::new(Sampling {
            temperature,
            top_k,
            top_p,
            seed,
        })
        .unwrap()
    }

    /// How often each of three logits is drawn in a thousand draws.
    fn counts(mut sampler: Sampler) -> [usize; 3] {
        // Probabilities 0.6, 0.1, 0.3.
        let logits = [0.6f32.ln(), 0.1f32.ln(), 0.3f32.ln()];
        let mut counts = [0; 3];
        (0..1000).for_each(|_| counts[sampler.pick(&logits)] += 1);
        counts
    }

    #[test]
    fn draws_follow_the_distribution() {
        let [a, b, c] = counts(sampler(1.0, None, None));
        // Three standard deviations of a binomial are at most 47.
        assert!(a.abs_diff(600) < 47 && b.abs_diff(100) < 47 && c.abs_diff(300) < 47);
    }

    #[test]
    fn filters_cut_the_tail() {
        assert_eq!(counts(sampler(0.0, None, None)), [1000, 0, 0]);
        assert_eq!(counts(sampler(1.0, Some(1), None)), [1000, 0, 0]);
        assert_eq!(counts(sampler(1.0, Some(2), None))[1], 0);
        assert_eq!(counts(sampler(1.0, None, Some(0.5))), [1000, 0, 0]);
        let [a, b, c] = counts(sampler(1.0, None, Some(0.7)));
        assert!(a.abs_diff(667) < 47 && b == 0 && c > 0);
    }

    #[test]
    fn a_parameter_out_of_range_is_named() {
        for (temperature, top_k, top_p, name) in [
            (-1.0, None, None, "temperature"),
            (f64::NAN, None, None, "temperature"),
            (1.0, Some(0), None, "top_k"),
            (1.0, None, Some(0.0), "top_p"),
            (1.0, None, Some(1.5), "top_p"),
        ] {
            let seed = 0;
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                seed,
            };
            assert_eq!(sampling.validate().unwrap_err().field, name);
        }
    }

    #[test]
    fn a_character_is_never_cut() {
        let mut stream = TextStream::new(&Tokenizer::Byte);
        let pieces: Vec<String> = "aé€😀b"
            .bytes()
            .map(|byte| stream.push(u32::from(byte)).unwrap())
            .collect();
        assert_eq!(pieces.concat(), "aé€😀b");
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')));
        // Bytes that are no character come out as such in the end.
        let pieces: Vec<String> = [0xff, 0xff, 0xff, 0xff, 0x61]
            .map(|id| stream.push(id).unwrap())
            .to_vec();
        assert!(pieces.concat().ends_with('a'));
        stream.push(0xe2).unwrap();
        assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
    }

    #[cfg(feature = "flex")]
    #[test]
    fn the_cache_changes_nothing() {
        let config = hybridnorm_core::DecoderConfig::new(40, 32, 4, 3);
        let model = config.init(&Device::flex()).unwrap();
        let with = greedy(&model, &[1, 2, 3], 12, true, 40).unwrap();
        let without = greedy(&model, &[1, 2, 3], 12, false, 40).unwrap();
        assert_eq!(with, without);
        assert_eq!(with.len(), 12);
    }

    #[cfg(feature = "flex")]
    #[test]
    fn a_text_may_outgrow_its_window() {
        let config = hybridnorm_core::DecoderConfig::new(40, 32, 4, 1);
        let model = config.init(&Device::flex()).unwrap();
        let mut context = Context::new(&model, 8);
        for id in 0..30 {
            assert_eq!(context.feed(&[id]).unwrap().len(), 40);
            assert!(context.held.len() <= 8);
        }
        assert_eq!(context.feed(&[1; 20]).unwrap().len(), 40);
    }
}
