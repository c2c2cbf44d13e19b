//! `config.json`, field by field: every one is either read, known to change nothing, or refused by name.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::{InteropError, unsupported};

/// Fields that do not change what a model computes: ids and names, how a text is generated, what is printed and returned, how a model
/// that is no language model ends.
const WITHOUT_EFFECT: [&str; 62] = [
    "architectures",
    "model_type",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "sep_token_id",
    "cls_token_id",
    "decoder_start_token_id",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "initializer_range",
    "output_router_logits",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "use_cache",
    "cache_implementation",
    "_name_or_path",
    "name_or_path",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "attn_implementation",
    "pretraining_tp",
    "is_decoder",
    "is_encoder_decoder",
    "add_cross_attention",
    "chunk_size_feed_forward",
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "problem_type",
    "task_specific_params",
    "tokenizer_class",
    "prefix",
    "pruned_heads",
    "torchscript",
    "tie_encoder_decoder",
    "tf_legacy_loss",
    "use_bfloat16",
    "max_length",
    "min_length",
    "do_sample",
    "early_stopping",
    "num_beams",
    "num_beam_groups",
    "diversity_penalty",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "length_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "num_return_sequences",
    "output_scores",
    "return_dict_in_generate",
    "remove_invalid_values",
    "transformers.js_config",
    "unsloth_version",
];

/// An object of a configuration.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What the names of its fields begin with in messages.
    prefix: &'static str,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Fields<'a> {
    pub fn new(map: &'a Map<String, Value>, prefix: &'static str) -> Self {
        Self {
            map,
            prefix,
            read: RefCell::default(),
        }
    }

    /// The field's name in messages.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The field called `name`; `null` counts as absent.
    ///
    /// # Errors
    /// When it holds something of another kind.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, InteropError> {
        self.or(name, None)
    }

    /// The field called `name`, or `default` where it is absent. `null` is a value: `None`, where `T` is an `Option`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn or<T: DeserializeOwned>(&self, name: &str, default: T) -> Result<T, InteropError> {
        self.read.borrow_mut().insert(name.to_string());
        let Some(value) = self.map.get(name) else {
            return Ok(default);
        };
        T::deserialize(value).or_else(|error| {
            let reason = error.to_string();
            unsupported(&self.path(name), value, &reason)
        })
    }

    /// A switch that is off unless the field called `name` turns it on: `null` is off, as in Python.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn flag(&self, name: &str) -> Result<bool, InteropError> {
        Ok(self.get(name)?.unwrap_or(false))
    }

    /// The field called `name`, which has to be there.
    ///
    /// # Errors
    /// When it is not, or holds something of another kind.
    pub fn needed<T: DeserializeOwned>(&self, name: &str) -> Result<T, InteropError> {
        match self.get(name)? {
            Some(value) => Ok(value),
            None => unsupported(&self.path(name), json!(null), "it is needed here"),
        }
    }

    /// The first of `names` that is there, or `default`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn first<T: DeserializeOwned>(
        &self,
        names: &[&'static str],
        default: T,
    ) -> Result<T, InteropError> {
        let mut found = None;
        for name in names {
            let value = self.get(name)?;
            found = found.or(value);
        }
        Ok(found.unwrap_or(default))
    }

    /// Refuses any other value of the field called `name` than `only`, which is also its default.
    ///
    /// # Errors
    /// With `reason`.
    pub fn only(&self, name: &str, only: Value, reason: &str) -> Result<(), InteropError> {
        let same = |value: &Value| match (value.as_f64(), only.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => *value == only,
        };
        match self.get::<Value>(name)? {
            Some(value) if !same(&value) => unsupported(&self.path(name), value, reason),
            _ => Ok(()),
        }
    }

    /// Refuses a field that nobody has read.
    ///
    /// # Errors
    /// Names it.
    pub fn finish(&self) -> Result<(), InteropError> {
        let read = self.read.borrow();
        let off = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        let unread = self.map.iter().find(|(name, value)| {
            !read.contains(*name) && !WITHOUT_EFFECT.contains(&name.as_str()) && !off(value)
        });
        match unread {
            None => Ok(()),
            Some((name, value)) => {
                unsupported(&self.path(name), value, "what it does is not known here")
            }
        }
    }
}
