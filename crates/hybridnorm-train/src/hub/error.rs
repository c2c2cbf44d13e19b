//! Why a model on the Hub cannot be had.

use std::io;
#[cfg(feature = "hub")]
use std::path::Path;
use std::path::PathBuf;

use super::reference::Reference;

/// A model that cannot be had, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// It begins with `hf:` and is no reference.
    #[error(
        "\"{spec}\" names no model on the Hub: hf:owner/name or hf:owner/name@revision is allowed"
    )]
    BadReference {
        /// What was given.
        spec: String,
    },
    /// The program knows nothing of the Hub.
    #[error(
        "{reference} needs the Cargo feature `hub`: build with --features hub, or give a folder"
    )]
    NotCompiledIn {
        /// The model.
        reference: Box<Reference>,
    },
    /// There is no place to keep files in.
    #[error("there is no home directory to keep models in: set HF_HOME")]
    NoHome,
    /// A variable of the environment makes no sense.
    #[error("{variable} = \"{value}\" is not allowed: {allowed}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The network may not be used, or cannot, and the model is not there.
    #[error(
        "{reference} is not in {}, and {reason}; with a connection run `hf download {} --revision {}`, or put config.json, the \
         tokenizer and the *.safetensors files of {endpoint}/{} into a folder and give its path",
        cache.display(), reference.repository(), reference.revision, reference.repository()
    )]
    Unreachable {
        /// The model.
        reference: Box<Reference>,
        /// Where it was looked for.
        cache: PathBuf,
        /// Why it could not be fetched.
        reason: String,
        /// The server.
        endpoint: String,
    },
    /// The server knows no such model.
    #[error("{endpoint} has no model {} (asked for revision {}), or it is private: HF_TOKEN gives access", reference.repository(), reference.revision)]
    NoModel {
        /// The model.
        reference: Box<Reference>,
        /// The server.
        endpoint: String,
    },
    /// The model has no such revision.
    #[error("model {} on {endpoint} has no revision \"{}\": give a branch, a tag or a commit of it", reference.repository(), reference.revision)]
    NoRevision {
        /// The model.
        reference: Box<Reference>,
        /// The server.
        endpoint: String,
    },
    /// The server wants to know who asks.
    #[error(
        "{endpoint} refuses {reference} (status {status}): accept its terms at {endpoint}/{}, and set HF_TOKEN to a token that may read it",
        reference.repository()
    )]
    Forbidden {
        /// The model.
        reference: Box<Reference>,
        /// The server.
        endpoint: String,
        /// 401 or 403.
        status: u16,
    },
    /// The repository holds no model that can be read.
    #[error("{reference} has no {missing}; it has {found}")]
    NoFile {
        /// The model.
        reference: Box<Reference>,
        /// What is missing.
        missing: &'static str,
        /// What there is instead.
        found: String,
    },
    /// The server answers otherwise than the Hub does.
    #[error("{url} answered {answer}")]
    Answer {
        /// What was asked.
        url: String,
        /// What came.
        answer: String,
    },
    /// A download broke off, again and again.
    #[error(
        "{url} broke off after {got} of {size} bytes: {reason}; the next try goes on from there"
    )]
    BrokenOff {
        /// What was asked.
        url: String,
        /// Bytes that are there.
        got: u64,
        /// Bytes of the file.
        size: u64,
        /// What went wrong last.
        reason: String,
    },
    /// What came is not what the server announced.
    #[error("{url} is damaged: {problem}; it was removed")]
    Damaged {
        /// What was asked.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, e.g. `write`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl HubError {
    /// Wraps the file system's answer to `action` on `path`.
    #[cfg(feature = "hub")]
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
