//! Text to token ids and back: the bytes themselves, or a published `tokenizer.json`.
//!
//! A crate of its own, because it is needed where nothing is trained too, as in a browser (`examples/web`).
//!
//! ```
//! use hybridnorm_tokenizer::Tokenizer;
//!
//! let tokenizer = Tokenizer::from_spec("byte")?;
//! assert_eq!(tokenizer.encode("né")?, [0x6e, 0xc3, 0xa9]);
//! # Ok::<(), hybridnorm_tokenizer::TokenizerError>(())
//! ```
#![warn(missing_docs)]

mod error;
mod guard;
mod tokenizer;

pub use error::TokenizerError;
pub use guard::guarded;
pub use tokenizer::{END_OF_DOCUMENT_NAMES, Encoding, HuggingFace, Tokenizer};
