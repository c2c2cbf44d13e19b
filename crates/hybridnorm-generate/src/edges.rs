//! What stands before a text and after it.

use hybridnorm_tokenizer::{Tokenizer, TokenizerError};
use serde_json::{Map, Value};

/// The ids around the texts of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edges {
    /// Ids that stand before every text.
    pub start: Vec<u32>,
    /// What stands before a text's first token where nothing else does: `start`, or the token that begins or ends a document.
    pub blank: Vec<u32>,
    /// Ids that end a text.
    pub ends: Vec<u32>,
}

impl Edges {
    /// Of a model that was trained on documents with `end` between them.
    pub fn of_documents(end: u32) -> Self {
        Self {
            start: vec![end],
            blank: vec![end],
            ends: vec![end],
        }
    }

    /// Of a published model: what its tokenizer puts before a text, and the ids that `config.json` and `generation_config.json` name
    /// (`bos_token_id`, `eos_token_id`).
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn of_published(
        tokenizer: &Tokenizer,
        config: &Map<String, Value>,
        generation: &Map<String, Value>,
    ) -> Result<Self, TokenizerError> {
        let named = |name: &str| {
            let of = |config: &Map<String, Value>| config.get(name).map(ids).unwrap_or_default();
            [of(generation), of(config)].concat()
        };
        let mut ends = named("eos_token_id");
        ends.extend(tokenizer.end_of_document().ok());
        ends.sort_unstable();
        ends.dedup();
        let start = tokenizer.opening()?;
        let mut alone = named("bos_token_id")
            .into_iter()
            .chain(ends.first().copied());
        Ok(Self {
            blank: match start.is_empty() {
                true => alone.next().into_iter().collect(),
                false => start.clone(),
            },
            start,
            ends,
        })
    }

    /// The ids of a text that is to be continued; without a text, what begins one.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn prompt(&self, tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let ids = [&self.start[..], &tokenizer.encode(text)?].concat();
        Ok(match ids.is_empty() {
            true => self.blank.clone(),
            false => ids,
        })
    }
}

/// One id, or a list of them: `eos_token_id`.
pub fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[test]
    fn a_published_model_says_where_its_texts_end() {
        let config = object(json!({"bos_token_id": 7, "eos_token_id": 9}));
        let generation = object(json!({"eos_token_id": [3, 9]}));
        let edges = Edges::of_published(&Tokenizer::Byte, &config, &generation).unwrap();
        assert_eq!(edges.ends, [3, 9, 256]);
        // The byte tokenizer puts nothing around a text.
        assert!(edges.start.is_empty());
        assert_eq!(edges.prompt(&Tokenizer::Byte, "").unwrap(), [7]);
        assert_eq!(edges.prompt(&Tokenizer::Byte, "a").unwrap(), [97]);
        let bare = Edges::of_published(&Tokenizer::Byte, &Map::new(), &Map::new()).unwrap();
        assert_eq!(bare.blank, [256]);
    }

    #[test]
    fn a_document_begins_behind_the_end_of_another() {
        let edges = Edges::of_documents(256);
        assert_eq!(edges.prompt(&Tokenizer::Byte, "a").unwrap(), [256, 97]);
        assert_eq!(edges.prompt(&Tokenizer::Byte, "").unwrap(), [256]);
    }
}
