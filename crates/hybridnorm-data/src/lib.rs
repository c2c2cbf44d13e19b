//! From text on disk to batches of token ids, without a tensor in sight.
//!
//! ```text
//!                      ┌─ Preparation ── Shards ─────────────┬─ TokenSource ── Batches     (training: step → StepBatch)
//! Files ── documents ──┤  streaming, in parallel             │
//!                      └─ Corpus ── TextSplit ── Tokenizer ──┴─ HeldOut ────── Validation  (every token a target once)
//!                         in memory, by hash
//! ```
//!
//! Two rules hold everywhere. A training batch is a pure function of (data, seed, step), so nothing
//! about the data order is ever saved. And a validation window knows how many UTF-8 bytes stand behind
//! its targets, so that bits per byte means the same under every tokenizer.
//!
//! A file is not trusted: whatever its bytes, it costs an error that names it, in bounded memory and time.
#![warn(missing_docs)]

mod batches;
mod corpus;
mod document_mask;
mod error;
mod generated;
mod input;
mod mixture;
mod permutation;
mod pinned;
mod prepare;
mod registry;
mod repetition;
mod shards;
mod source;
mod split;
mod store;
mod tokenized;
mod train_tokenizer;
mod validation;

pub use batches::{Batches, Place, StepBatch};
pub use corpus::{Corpus, Document, Source};
pub use document_mask::document_numbers;
pub use error::DataError;
pub use hybridnorm_tokenizer::{Encoding, HuggingFace, Tokenizer, TokenizerError};
pub use input::{Compression, Files, Format, InputFile, Reading, Record, Records, TextLines};
pub use mixture::Mixture;
pub use permutation::Permutation;
pub use prepare::{DEFAULT_MAX_DOCUMENT_BYTES, DEFAULT_SHARD_TOKENS, Preparation, Progress};
pub use registry::DEFAULT_MAX_BYTES;
pub use repetition::repeats;
pub use shards::{
    FileRecord, INDEX_FILE, Index, Input, Shard, ShardedHeldOut, Shards, Side, TokenFiles,
    TokenizerRecord, Width,
};
pub use source::TokenSource;
pub use split::{SplitRule, TextSplit, VALIDATION_FRACTION};
pub use store::TokenStore;
pub use tokenized::{TokenSplit, TokenizedCorpus, ValidationSplit};
pub use train_tokenizer::TokenizerTraining;
pub use validation::{HeldOut, Validation, ValidationBatch};

/// Words `a` and `b`, an unknown token, and a gap before the end of document at id 9.
#[cfg(test)]
fn tokenizer_of_words() -> Tokenizer {
    let json = include_bytes!("../../hybridnorm-tokenizer/tests/words.json");
    Tokenizer::from_bytes(json.to_vec(), "words.json".as_ref()).unwrap()
}
