//! What can go wrong between files and models.

use std::path::{Path, PathBuf};

use hybridnorm_core::ConfigError;

/// A file that cannot be read, or that does not fit the model. One line each.
#[derive(Debug, thiserror::Error)]
pub enum InteropError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what its name says.
    #[error("{path} is not a {expected} file: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        reason: String,
    },
    /// A tensor is absent.
    #[error("{path} has no tensor \"{name}\"")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has a type that is not read here.
    #[error(
        "tensor \"{name}\" in {path} has type {dtype}; readable are F16, BF16, F32, F64, I32, I64, U8 and BOOL"
    )]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// Tensors and model do not fit each other.
    #[error("the tensors do not fit the model: {}", .0.join("; "))]
    Mismatch(Vec<String>),
    /// The model's configuration is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The architecture cannot be expressed.
    #[error("{field} = {value} cannot be expressed: {reason}")]
    Unsupported {
        /// The configuration field.
        field: String,
        /// Its value.
        value: String,
        /// Why.
        reason: String,
    },
}

impl InteropError {
    /// Wraps the file system's answer to an attempt to write `path`.
    pub(crate) fn write(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Write { path, source }
    }
}

/// The refusal of `field`.
pub(crate) fn unsupported<T>(
    field: &str,
    value: impl ToString,
    reason: &str,
) -> Result<T, InteropError> {
    Err(InteropError::Unsupported {
        field: field.to_string(),
        value: value.to_string(),
        reason: reason.to_string(),
    })
}

pub(crate) fn format_error(
    path: &Path,
    expected: &'static str,
    reason: impl Into<String>,
) -> InteropError {
    InteropError::Format {
        path: path.to_path_buf(),
        expected,
        reason: reason.into(),
    }
}
