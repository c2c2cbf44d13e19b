//! Why a tokenizer cannot be had, or refuses a text.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A refusal. Each message is one line and names what, where, and what to do.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The operating system refused to read the file.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The tokenizer is neither `byte` nor a file.
    #[error("unknown tokenizer `{spec}`: expected `byte` or the path of a tokenizer.json")]
    Unknown {
        /// What was given.
        spec: String,
    },

    /// A `tokenizer.json` cannot be used.
    #[error("{} is not a usable tokenizer.json: {message}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },

    /// A tokenizer has no token that ends a document.
    #[error("{} has no end-of-document token: looked for {looked_for}", path.display())]
    NoEndOfDocument {
        /// The `tokenizer.json`.
        path: PathBuf,
        /// The names that were looked for.
        looked_for: String,
    },

    /// The tokenizer refused a text or a sequence of ids.
    #[error("tokenizer {name} cannot {action}: {message}")]
    Tokenize {
        /// [`Tokenizer::name`](super::Tokenizer::name).
        name: String,
        /// `encode a document` or `decode ids`.
        action: &'static str,
        /// What the tokenizer said.
        message: String,
    },
}
