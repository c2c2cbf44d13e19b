//! Why there is no report.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::TrainError;

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is nothing to report on.
    #[error(
        "{} holds neither a run (config.toml), nor a comparison (compare.json), nor a probe (probe.jsonl)",
        path.display()
    )]
    Nothing {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A file cannot be understood.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A run's files cannot be read or understood.
    #[error(transparent)]
    Run(#[from] TrainError),
    /// A picture could not be drawn.
    #[error("cannot draw {figure}: {reason}")]
    Drawing {
        /// Which one.
        figure: String,
        /// Why.
        reason: String,
    },
    /// This build cannot.
    #[error("--png: only in a build with it: cargo build --release --features png")]
    NoPng,
    /// There is no font to write a picture's words in.
    #[error(
        "a PNG needs a font, and this system has no sans-serif one: install one (Debian: fonts-dejavu-core), or use --svg"
    )]
    NoFont,
}

impl ReportError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
