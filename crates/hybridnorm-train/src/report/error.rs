//! Why there is no report.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::TrainError;
use crate::shell;

/// Most directories that are named in place of one that holds nothing.
const NAMED: usize = 8;

/// Why a report cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory does not exist.
    #[error("there is no directory {}: name that of a run, a comparison or a probe", path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// There is nothing to report on.
    #[error(
        "{} holds neither a run (config.toml), nor a comparison (compare.json), nor a probe (probe.jsonl){}",
        path.display(),
        instead(near)
    )]
    Nothing {
        /// The directory.
        path: PathBuf,
        /// Those below or above it that hold one.
        near: Vec<PathBuf>,
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
    #[error("--png: this build has no PNG: rebuild with --features png, or use --svg")]
    NoPng,
    /// There is no font to write a picture's words in.
    #[error(
        "a PNG needs a font, and this system has no sans-serif one: install one (Debian: fonts-dejavu-core), or use --svg"
    )]
    NoFont,
}

/// `: name one of those there: runs/a, runs/b and 3 more`.
fn instead(near: &[PathBuf]) -> String {
    let named = near.iter().take(NAMED).map(|path| shell::word(path));
    let named = named.collect::<Vec<_>>().join(", ");
    match near.len() {
        0 => String::new(),
        1 => format!(": did you mean {named}?"),
        all if all > NAMED => format!(
            ": name one of those there: {named} and {} more",
            all - NAMED
        ),
        _ => format!(": name one of those there: {named}"),
    }
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
