//! The most likely text, as tokens.

use hybridnorm_core::{Decoder, FeedForward};

use crate::error::GenerateError;
use crate::sampling::argmax;
use crate::texts::Texts;

/// The `n` most likely tokens after `prompt`, one after the other, among the first `vocab_width` logits.
///
/// # Errors
/// When the device fails.
pub fn greedy<F: FeedForward + Sync>(
    model: &Decoder<F>,
    prompt: &[u32],
    n: usize,
    use_cache: bool,
    vocab_width: usize,
) -> Result<Vec<u32>, GenerateError> {
    let texts = Texts::new(model, prompt.len() + n, prompt.len() + n);
    let mut texts = match use_cache {
        true => texts,
        false => texts.without_cache(),
    };
    let mut found = Vec::with_capacity(n);
    let mut logits = texts.begin(prompt)?;
    while found.len() < n {
        logits.truncate(vocab_width);
        let next = argmax(&logits) as u32;
        found.push(next);
        if found.len() < n {
            logits = texts.step(&[next])?.concat();
        }
    }
    Ok(found)
}
