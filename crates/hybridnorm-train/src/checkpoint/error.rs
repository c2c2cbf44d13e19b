//! What can be wrong with a checkpoint.

use std::io;
use std::path::{Path, PathBuf};

use hybridnorm_core::ConfigError;

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
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
    /// A generation is not what its manifest says.
    #[error("{} is damaged: {}", dir.display(), list(damages))]
    Damaged {
        /// The generation.
        dir: PathBuf,
        /// Every damage found, by file.
        damages: Vec<Damage>,
    },
    /// There are generations, but none is whole.
    #[error("none of the {generations} checkpoints in {} is whole; {newest}", dir.display())]
    NoneWhole {
        /// The folder of generations.
        dir: PathBuf,
        /// How many there are.
        generations: usize,
        /// What is wrong with the newest.
        newest: Box<CheckpointError>,
    },
    /// A tensor has another shape than the model's.
    #[error(
        "{}: tensor {tensor} has shape {found:?}, but the model needs {expected:?}: a checkpoint of another model",
        file.display()
    )]
    Shape {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape in the file.
        found: Vec<usize>,
        /// Its shape in the model.
        expected: Vec<usize>,
    },
    /// The file's tensors are not the model's.
    #[error("{}: tensor {tensor} {problem}", file.display())]
    Tensor {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value to be saved is NaN or infinite. Nothing is written.
    #[error("tensor {tensor} holds a value that is not finite; no checkpoint was written")]
    NonFinite {
        /// The tensor.
        tensor: String,
    },
    /// A record cannot be written as JSON or TOML.
    #[error("cannot serialise {what}: {reason}")]
    Serialize {
        /// The record.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The device failed while a tensor was read back.
    #[error("cannot read tensor {tensor} from the device: {reason}")]
    Device {
        /// The tensor.
        tensor: String,
        /// The device's answer.
        reason: String,
    },
    /// The model itself cannot be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl CheckpointError {
    /// Wraps the file system's answer to `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// One thing wrong with one file of a generation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The manifest lists it, the folder lacks it.
    #[error("{file} is missing")]
    Missing {
        /// The file's name.
        file: String,
    },
    /// It is shorter or longer than when it was written.
    #[error("{file} has {found} bytes instead of {expected}")]
    Size {
        /// The file's name.
        file: String,
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// Its content is not what was written.
    #[error("{file} differs from its BLAKE3 hash")]
    Hash {
        /// The file's name.
        file: String,
    },
    /// It cannot be read or understood.
    #[error("{file} is unreadable: {reason}")]
    Unreadable {
        /// The file's name.
        file: String,
        /// Why.
        reason: String,
    },
}

fn list(damages: &[Damage]) -> String {
    let all: Vec<String> = damages.iter().map(ToString::to_string).collect();
    all.join("; ")
}
