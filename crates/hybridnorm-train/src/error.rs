//! The program's one error: everything that can end a command, and its exit code.

use std::io;
use std::path::{Path, PathBuf};

use hybridnorm_core::ConfigError;
use hybridnorm_interop::InteropError;

use crate::checkpoint::CheckpointError;
use crate::data::{DataError, TokenizerError};
use crate::device::DeviceError;
use crate::engine::TrainError;
use crate::eval::ScoreError;
use crate::eval::questions::QuestionsError;
use crate::eval::yardstick::YardstickError;
use crate::export::ExportError;
use crate::generate::GenerateError;
use crate::hub::HubError;
use crate::memory::TooLarge;
use crate::report::ReportError;
use crate::shell::word;

/// What the program exits with, and when: the list behind `--help` and docs/reliability.md.
pub const EXIT_CODES: [(u8, &str); 5] = [
    (0, "done; or whoever read the output has had enough of it"),
    (
        1,
        "failed while running: a device, standard output, a certificate or checkpoints that do not pass",
    ),
    (
        2,
        "the user can put it right: flags, configuration, data, checkpoints, directories, a disk that is full",
    ),
    (
        3,
        "`--max-time` is up; a run has left a checkpoint to `--resume` from",
    ),
    (
        130,
        "interrupted; a run has left a checkpoint to `--resume` from",
    ),
];

/// A line of a file that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}:{line}: {reason}", path.display())]
pub struct BadLine {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what is expected.
    pub reason: String,
}

/// Why a command ended without doing all it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A field of the configuration holds what is not allowed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A configuration file cannot be read or understood.
    #[error("{}{}: {reason}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1, where known.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The device's memory does not hold the run.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// Training could not start or had to end.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A line of a file is not what it should be.
    #[error(transparent)]
    Line(#[from] BadLine),
    /// There is no model to read.
    #[error("{} holds no model: expected a run directory (config.toml), a checkpoint of one (manifest.json) or a Hugging Face folder (config.json)", path.display())]
    NoModel {
        /// The folder.
        path: PathBuf,
    },
    /// What should be a published model is a run.
    #[error(
        "{} is a run of this program already: generate, eval and train --resume take it as it is; `hybridnorm-train export {} --out DIR` \
         makes a Hugging Face folder of it",
        path.display(),
        crate::shell::word(path)
    )]
    AlreadyARun {
        /// The run directory, or one of its checkpoints.
        path: PathBuf,
    },
    /// There is no checkpoint to read a model from.
    #[error("{} holds no checkpoint yet: continue the run with --resume, or give another --model", path.display())]
    NoCheckpoint {
        /// The run directory.
        path: PathBuf,
    },
    /// A model could not be scored.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The yardsticks could not be measured.
    #[error(transparent)]
    Yardstick(#[from] YardstickError),
    /// Nothing was exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A model on the Hub cannot be had.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// There is no report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// No text could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// The reference cannot be read.
    #[error(transparent)]
    Reference(#[from] InteropError),
    /// The device does not compute what it should.
    #[error("{failed} reference cases failed")]
    Verification {
        /// How many.
        failed: usize,
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
    /// A part of the program broke down; its own message was printed before.
    #[error("{0} panicked: please report this as a bug")]
    Panicked(&'static str),
    /// A process that this one started failed.
    #[error("{what}: {reason}")]
    Child {
        /// What it was to do.
        what: String,
        /// What it said.
        reason: String,
    },
    /// Standard output is gone.
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
    /// Some checkpoints of a run are damaged.
    #[error("{damaged} of {checkpoints} checkpoints are damaged")]
    DamagedCheckpoints {
        /// How many.
        damaged: usize,
        /// Of how many.
        checkpoints: usize,
    },
    /// A comparison was stopped, by the user or by `--max-time`.
    #[error(
        "{} after {done} of {runs} runs: the same command continues them in {}",
        if *out_of_time { "time is up" } else { "interrupted" },
        dir.display()
    )]
    ComparisonStopped {
        /// Runs that came to an end.
        done: usize,
        /// Of how many.
        runs: usize,
        /// The comparison's directory.
        dir: PathBuf,
        /// Whether it was `--max-time`.
        out_of_time: bool,
    },
    /// A run was stopped by `--max-time` and left a checkpoint behind.
    #[error(
        "time is up after step {step} of {steps}: continue with `hybridnorm-train train --out {} --resume`",
        word(run)
    )]
    OutOfTime {
        /// Steps done.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// The run directory.
        run: PathBuf,
    },
    /// A run was stopped by the user and left a checkpoint behind.
    #[error(
        "interrupted after step {step} of {steps}: continue with `hybridnorm-train train --out {} --resume`",
        word(run)
    )]
    Interrupted {
        /// Steps done.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// The run directory.
        run: PathBuf,
    },
}

impl From<QuestionsError> for Error {
    fn from(error: QuestionsError) -> Self {
        match error {
            QuestionsError::Data(error) => error.into(),
            QuestionsError::Tokenizer(error) => error.into(),
            QuestionsError::Line(error) => error.into(),
        }
    }
}

impl Error {
    /// Wraps the file system's answer to `action` on `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// What the process exits with: one of [`EXIT_CODES`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::ComparisonStopped {
                out_of_time: true, ..
            } => 3,
            Self::Interrupted { .. } | Self::ComparisonStopped { .. } => 130,
            Self::OutOfTime { .. } => 3,
            Self::Usage(_)
            | Self::Config(_)
            | Self::ConfigFile { .. }
            | Self::Data(_)
            | Self::Tokenizer(_)
            | Self::Device(_)
            | Self::Memory(_)
            | Self::Line(_)
            | Self::NoModel { .. }
            | Self::AlreadyARun { .. }
            | Self::NoCheckpoint { .. }
            | Self::Reference(_)
            | Self::Hub(_)
            | Self::Io { .. } => 2,
            Self::Checkpoint(error) => checkpoint_code(error),
            Self::Export(ExportError::Parity { .. } | ExportError::Device(_)) => 1,
            Self::Export(_) => 2,
            Self::Score(
                ScoreError::Data(_) | ScoreError::Tokenizer(_) | ScoreError::TooLong { .. },
            ) => 2,
            Self::Generate(
                GenerateError::Config(_) | GenerateError::Tokenizer(_) | GenerateError::Chat { .. },
            ) => 2,
            Self::Report(ReportError::Drawing { .. }) => 1,
            Self::Report(_) => 2,
            Self::Train(error) => match error {
                TrainError::Checkpoint(error) => checkpoint_code(error),
                TrainError::Config(_)
                | TrainError::Precision { .. }
                | TrainError::RunExists { .. }
                | TrainError::NoDirectory { .. }
                | TrainError::NoRun { .. }
                | TrainError::Locked { .. }
                | TrainError::Io { .. }
                | TrainError::ConfigFile { .. }
                | TrainError::ConfigChanged { .. }
                | TrainError::NothingToAllow { .. }
                | TrainError::Data { .. }
                | TrainError::Questions(_)
                | TrainError::DataChanged { .. } => 2,
                _ => 1,
            },
            Self::Score(_)
            | Self::Yardstick(_)
            | Self::Generate(_)
            | Self::Verification { .. }
            | Self::DamagedCheckpoints { .. }
            | Self::Panicked(_)
            | Self::Child { .. }
            | Self::Output(_) => 1,
        }
    }

    /// The message on one line.
    pub fn one_line(&self) -> String {
        let text = self.to_string();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

fn checkpoint_code(error: &CheckpointError) -> u8 {
    match error {
        CheckpointError::NonFinite { .. }
        | CheckpointError::Serialize { .. }
        | CheckpointError::Device { .. } => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_who_leaves_is_no_failure() {
        let code = |kind: io::ErrorKind| Error::Output(kind.into()).exit_code();
        assert_eq!(code(io::ErrorKind::BrokenPipe), 0);
        assert_eq!(code(io::ErrorKind::StorageFull), 1);
    }

    #[test]
    fn the_page_has_every_exit_code() {
        let page = include_str!("../../../docs/reliability.md");
        for (code, when) in EXIT_CODES {
            let row = format!("| {code} | {when} |");
            assert!(page.contains(&row), "{row}");
        }
    }

    #[test]
    fn messages_are_brought_to_one_line() {
        let error = Error::Usage("first\n  second".to_string());
        assert_eq!(error.one_line(), "first second");
        assert_eq!(error.exit_code(), 2);
    }
}
