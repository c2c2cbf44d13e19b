//! `hf:owner/name[@revision]`: models from the Hugging Face Hub, wherever a folder is accepted.
//!
//! Files go where Python's `huggingface_hub` keeps them, and are found there: `models--owner--name/blobs/ID`, and for each commit
//! `snapshots/COMMIT/FILE`, a link to the blob. The environment decides as it does there:
//!
//! | variable | what |
//! |---|---|
//! | `HF_ENDPOINT` | the server, `https://huggingface.co` unless given |
//! | `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME` | where files are kept: the first of `HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`, `~/.cache/huggingface/hub` |
//! | `HF_TOKEN`, `HF_TOKEN_PATH` | what gives access to private and gated models; else the file `HF_HOME/token` |
//! | `HF_HUB_OFFLINE` | `1`: only what is kept already |
//!
//! The client is our own over `ureq`: hf-hub 1.0 needs an asynchronous runtime and 280 crates, and 0.5 appends to a resumed file without
//! looking at what the server answers, checks neither size nor content, never times out, and rebuilds all of Burn by its features.

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
mod error;
mod reference;
#[cfg(feature = "hub")]
mod settings;

use std::path::{Path, PathBuf};

pub use error::HubError;
pub use reference::Reference;

#[cfg(feature = "hub")]
pub use download::Hub;
#[cfg(feature = "hub")]
pub use settings::Settings;

/// What of a model is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// `config.json` alone.
    Config,
    /// That, the tokenizer, and the weights as safetensors.
    Model,
}

/// The folder that `spec` stands for: a path as it is, and for `hf:owner/name[@revision]` the place where the model lies, downloaded
/// first where it is not there yet or not wholly. Progress goes to standard error.
///
/// # Errors
/// When the reference is no such thing, the model cannot be had, or (without the Cargo feature `hub`) for every reference.
pub fn resolve(spec: impl AsRef<Path>) -> Result<PathBuf, HubError> {
    resolve_for(spec, Want::Model)
}

/// As [`resolve`], with no more than is needed.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_for(spec: impl AsRef<Path>, want: Want) -> Result<PathBuf, HubError> {
    let spec = spec.as_ref();
    // What is no text is a path.
    let reference = spec.to_str().map(Reference::parse).transpose()?;
    match reference.flatten() {
        Some(reference) => fetch(&reference, want),
        None => Ok(spec.to_path_buf()),
    }
}

#[cfg(feature = "hub")]
fn fetch(reference: &Reference, want: Want) -> Result<PathBuf, HubError> {
    Hub::new(Settings::from_env()?).fetch(reference, want)
}

#[cfg(not(feature = "hub"))]
fn fetch(reference: &Reference, _want: Want) -> Result<PathBuf, HubError> {
    Err(HubError::NotCompiledIn {
        reference: Box::new(reference.clone()),
    })
}
