//! Whether a tokenizer's ids have rows in a model's embedding.

use hybridnorm_core::ConfigError;
use hybridnorm_tokenizer::Tokenizer;

/// Whether a model with `rows` rows in its embedding has one for all that `tokenizer` makes of a text. Special tokens may lie beyond the
/// last row (Gemma 3 1B has one for images): no text is turned into them, but for chat templates, and an id that is met and has no row is
/// an error then. Gives a sentence about them.
///
/// # Errors
/// When a text could be turned into an id that has no row.
pub fn fits(tokenizer: &Tokenizer, rows: usize) -> Result<Option<String>, ConfigError> {
    let ids = tokenizer.vocab_size();
    if ids <= rows {
        return Ok(None);
    }
    if tokenizer.only_special_from(rows) {
        return Ok(Some(format!(
            "{} has tokens up to id {}, the model has rows for {rows}: those above are special ones and cannot be used",
            tokenizer.name(),
            ids - 1
        )));
    }
    let allowed = format!("a tokenizer of at most {rows} tokens, which the model has rows for");
    let value = format!("{} ({ids} tokens)", tokenizer.name());
    Err(ConfigError::new("tokenizer", value, allowed))
}
