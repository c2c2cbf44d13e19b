//! From text on disk to batches of token ids, without a tensor in sight.
//!
//! ```text
//! Corpus ── TextSplit ── Tokenizer ──┬─ TokenSplit ── Batches     (training: step → [batch, seq + 1])
//!  documents  by hash                └─ ValidationSplit ── Validation  (every token a target once)
//! ```
//!
//! Two rules hold everywhere. A training batch is a pure function of (corpus, seed, step), so nothing
//! about the data order is ever saved. And a validation window knows how many UTF-8 bytes stand behind
//! its targets, so that bits per byte means the same under every tokenizer.
#![warn(missing_docs)]

mod batches;
mod corpus;
mod error;
mod generated;
mod permutation;
mod pinned;
mod registry;
mod split;
mod store;
mod tokenizer;
mod validation;

pub use batches::Batches;
pub use corpus::{Corpus, Document, Source};
pub use error::DataError;
pub use permutation::Permutation;
pub use registry::DEFAULT_MAX_BYTES;
pub use split::{
    SplitRule, TextSplit, TokenSplit, TokenizedCorpus, VALIDATION_FRACTION, ValidationSplit,
};
pub use store::TokenStore;
pub use tokenizer::{Encoding, HuggingFace, Tokenizer};
pub use validation::{Validation, ValidationBatch};
