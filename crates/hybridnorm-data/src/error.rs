//! What can go wrong between a path and a batch.

use std::io;
use std::path::{Path, PathBuf};

use hybridnorm_tokenizer::TokenizerError;
use thiserror::Error;

use super::input::READABLE;

/// What to do with a file that seems to hold token ids.
fn if_tokens(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy" | "bin") => {
            "; files of token ids are sources of a configuration, [[data.sources]] (docs/data.md)"
        }
        _ => "",
    }
}

/// A refusal of the data pipeline. Each message is one line and names what, where, and what to do.
#[derive(Debug, Error)]
pub enum DataError {
    /// Nothing stands at the path.
    #[error("{} does not exist: give a file ({READABLE}), a directory of them, or a pattern", path.display())]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },

    /// A file was named whose extension no reader takes.
    #[error("{} has an unsupported extension: expected {READABLE}{}", path.display(), if_tokens(path))]
    Unsupported {
        /// The file as it was given.
        path: PathBuf,
    },

    /// The path holds no text.
    #[error(
        "no text found under {}: expected files {READABLE}, with their text in `text`, and not all of them blank",
        path.display()
    )]
    Empty {
        /// The file or directory that was searched.
        path: PathBuf,
    },

    /// The operating system refused to list or read something.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A text file is not UTF-8.
    #[error(
        "{} is not UTF-8 at byte {offset}: convert the file to UTF-8 or leave it out",
        path.display()
    )]
    InvalidUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that is not valid, from 0.
        offset: usize,
    },

    /// A line of a `.jsonl` file is not a JSON object with a string `text`.
    #[error("{}:{line}: {message}: expected one JSON object per line with a string field `text`", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },

    /// A JSON object has no `text`.
    #[error("{}:{line}: the object has no field `text`", path.display())]
    MissingText {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },

    /// A pattern that is none, or that matches nothing.
    #[error("the pattern `{pattern}`: {message}")]
    BadPattern {
        /// The pattern as it was given.
        pattern: String,
        /// What is wrong with it.
        message: String,
    },

    /// A document, or the line it stands in, is longer than is allowed.
    #[error(
        "{}:{line}: more than {limit} bytes, which is the most that a document may have: \
         divide it, or raise the limit",
        path.display()
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Line or row number, from 1.
        line: u64,
        /// Bytes that are allowed.
        limit: usize,
    },

    /// A Parquet file cannot be read, or has no usable column `text`.
    #[error("{}, row {row}: {message}", path.display())]
    BadParquet {
        /// The file.
        path: PathBuf,
        /// Row number from 1; 0 is the file as a whole.
        row: u64,
        /// What the reader said.
        message: String,
    },

    /// The operating system refused to write something.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// A prepared folder, or a file of token ids, is not what it must be.
    #[error("{}: {message}", path.display())]
    BadShard {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        message: String,
    },

    /// A folder holds what another preparation left there.
    #[error(
        "{} holds a preparation with another {field}: {found}, not {expected}: \
         give the same inputs and flags, or another folder",
        path.display()
    )]
    OtherPreparation {
        /// The folder.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// What the folder was begun with.
        found: String,
        /// What is asked for now.
        expected: String,
    },

    /// Another process is preparing the same folder.
    #[error("{} is being prepared by another process: wait for it, or give another folder", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },

    /// The default corpus cannot be put together on this machine.
    #[error(
        "the default corpus was not found: {reason}: run `cargo fetch` in the hybridnorm repository, \
         or give `--data FILE|DIR`"
    )]
    NoDefaultCorpus {
        /// Which part is missing, and where it was looked for.
        reason: String,
    },

    /// A tokenizer cannot be had, or refuses a text.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),

    /// No tokenizer can be learnt.
    #[error("cannot train a tokenizer: {message}")]
    TrainTokenizer {
        /// What the library said.
        message: String,
    },

    /// A split has too few tokens for one sequence.
    #[error(
        "the {split} split has {tokens} tokens, fewer than seq + 1 = {needed}: use a shorter --seq or more data"
    )]
    TooShort {
        /// `training` or `validation`.
        split: &'static str,
        /// How many tokens it has.
        tokens: u64,
        /// How many one sequence needs.
        needed: u64,
    },

    /// The corpus is too small for both sides of the split.
    #[error(
        "cannot hold out {fraction} of {documents} documents ({bytes} bytes): give more documents, or another share with `data.validation_fraction`"
    )]
    CannotSplit {
        /// The share asked for.
        fraction: f64,
        /// How many documents there are.
        documents: usize,
        /// How many UTF-8 bytes they have.
        bytes: u64,
    },

    /// Of the documents to be prepared, all are on one side of the split.
    #[error("{}", one_sided(*fraction, *documents, *bytes, *held_out))]
    OneSided {
        /// The share asked for.
        fraction: f64,
        /// How many documents there are.
        documents: u64,
        /// How many UTF-8 bytes they have.
        bytes: u64,
        /// Whether all are held out; otherwise none is.
        held_out: bool,
    },

    /// A number is outside what the field allows.
    #[error("{field} is {value}: expected {allowed}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// What [`DataError::OneSided`] says.
fn one_sided(fraction: f64, documents: u64, bytes: u64, held_out: bool) -> String {
    let found = match (documents, held_out) {
        (0, _) => return "the inputs hold no text".to_string(),
        (1, true) => "the only document is".to_string(),
        (1, false) => "the only document is not".to_string(),
        (several, true) => format!("all of {several} documents are"),
        (several, false) => format!("none of {several} documents is"),
    };
    format!(
        "whole documents are held out, chosen by the hash of their text, and {found} ({bytes} bytes, share {fraction}): give more \
         documents, another share with --validation, or --validation 0 to hold out none; text that is not prepared is split \
         within documents where they are few: --data FILE"
    )
}

impl DataError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn shard(path: &Path, message: impl Into<String>) -> Self {
        Self::BadShard {
            path: path.to_owned(),
            message: message.into(),
        }
    }

    /// The default corpus is not on this machine, and why.
    pub(super) fn no_default_corpus(reason: String) -> Self {
        Self::NoDefaultCorpus { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_and_name_the_place() {
        let error = DataError::BadLine {
            path: "corpus/a.jsonl".into(),
            line: 7,
            message: "expected value at column 3".to_owned(),
        };
        assert_eq!(
            error.to_string(),
            "corpus/a.jsonl:7: expected value at column 3: \
             expected one JSON object per line with a string field `text`"
        );
        let error = DataError::NoDefaultCorpus {
            reason: "no Cargo.lock".to_owned(),
        };
        assert!(!error.to_string().contains('\n'));
        assert!(error.to_string().contains("--data FILE|DIR"));
    }

    #[test]
    fn too_short_says_both_numbers() {
        let error = DataError::TooShort {
            split: "training",
            tokens: 5,
            needed: 9,
        };
        assert_eq!(
            error.to_string(),
            "the training split has 5 tokens, fewer than seq + 1 = 9: use a shorter --seq or more data"
        );
    }
}
