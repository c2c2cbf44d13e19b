//! Why a run could not start or had to end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::train::TrainingError;
use hybridnorm_core::ConfigError;
use hybridnorm_moe::RoutingError;

use super::precision::Precision;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;
use crate::eval::questions::QuestionsError;

/// Why [`train`](super::train) failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration asks for something impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device cannot compute in the type that was asked for.
    #[error(
        "training.precision is {precision}, which this device cannot compute in: it has {found}"
    )]
    Precision {
        /// What was asked for.
        precision: Precision,
        /// What could be asked for here.
        found: String,
    },
    /// A checkpoint could not be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The run directory exists and nobody asked to resume it.
    #[error("{} already holds a run: choose another directory, or --resume it", path.display())]
    RunExists {
        /// The directory.
        path: PathBuf,
    },
    /// Something else stands where the run directory is to be.
    #[error("{} is no directory: choose another place for the run", path.display())]
    NoDirectory {
        /// What is there.
        path: PathBuf,
    },
    /// There is nothing to resume.
    #[error("{} holds no run: it has no config.toml", path.display())]
    NoRun {
        /// The directory.
        path: PathBuf,
    },
    /// Another process trains in this directory.
    #[error("{} is in use by another run", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
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
    /// A stored configuration can't be understood, or one can't be stored.
    #[error("{}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A resumed run was asked to compute something else than before.
    #[error(
        "{field} is {requested} now, but the run was started with {stored}: resuming would change its mathematics; \
         leave the field as it was, allow it with --allow {field}, or start a new run"
    )]
    ConfigChanged {
        /// The field, e.g. `model.d_model`.
        field: String,
        /// Its value in the run's `config.toml`.
        stored: String,
        /// The value asked for.
        requested: String,
    },
    /// A change was allowed that is none.
    #[error(
        "--allow {field}: that field is what it was when the run was started{}",
        list(changed)
    )]
    NothingToAllow {
        /// The field.
        field: String,
        /// Fields that differ and would change the mathematics.
        changed: Vec<String>,
    },
    /// The questions that the model is to be asked cannot be read.
    #[error(transparent)]
    Questions(#[from] QuestionsError),
    /// A resumed run would see other data than before.
    #[error(
        "the data is {found} now, but the run was started on {stored}: resuming would change its data"
    )]
    DataChanged {
        /// The data's identity in the checkpoint.
        stored: String,
        /// The data's identity now.
        found: String,
    },
    /// The training data cannot be read.
    #[error("batch of step {step}: {source}")]
    Data {
        /// The step, counted from 1.
        step: u64,
        /// What went wrong.
        source: Arc<DataError>,
    },
    /// The batch source broke its contract.
    #[error("batch of step {step}: {problem}")]
    Batch {
        /// The step, counted from 1.
        step: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The loss or the gradient is NaN or infinite. The weights of the step before were kept and not overwritten.
    #[error("{what} is {value} in step {step}; the weights are untouched by it")]
    NonFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value.
        value: f64,
        /// The step, counted from 1.
        step: u64,
    },
    /// The loss or the gradient norm is far above that of the steps before. Where it ends the run, the weights are those of the step
    /// before.
    #[error(
        "{what} is {value:.4} in step {step}, far above the steps before it, which allow {limit:.4}"
    )]
    Spike {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value.
        value: f64,
        /// What it had to stay below.
        limit: f64,
        /// The step, counted from 1.
        step: u64,
    },
    /// More steps were refused than `guard.patience` allows.
    #[error(
        "step {step} would be one more than the {patience} of {window} steps that guard.patience allows to be refused: this is no bad \
         batch. The last: {last}"
    )]
    OutOfPatience {
        /// The step, counted from 1.
        step: u64,
        /// Steps that may be refused.
        patience: usize,
        /// In so many.
        window: usize,
        /// What was wrong with this one.
        last: String,
    },
    /// A router of a sparse model went wrong. The weights of the step before were kept and not overwritten.
    #[error(
        "step {step}, micro-batch {micro_batch}: {source}; the weights are untouched by that step"
    )]
    Routing {
        /// The step, counted from 1.
        step: u64,
        /// The micro-batch, counted from 1, among whose tokens the one that is named is counted.
        micro_batch: usize,
        /// What went wrong, and where.
        source: RoutingError,
    },
    /// The device failed while a value was read back.
    #[error("cannot read the {what} of step {step} from the device: {reason}")]
    Device {
        /// What was read.
        what: &'static str,
        /// The step, counted from 1.
        step: u64,
        /// The device's answer.
        reason: String,
    },
    /// One of several devices failed.
    #[error(
        "device {device} of the run failed in step {step}: {reason}; the weights are untouched by that step"
    )]
    Replica {
        /// Its place in the list, counted from 1.
        device: usize,
        /// The step, counted from 1.
        step: u64,
        /// What Burn, or the system, said.
        reason: String,
    },
    /// The evaluation failed.
    #[error("evaluation after step {step}: {source}")]
    Evaluation {
        /// Steps done.
        step: u64,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Burn's learner ended the run.
    #[error("the learner stopped: {0}")]
    Learner(Arc<TrainingError>),
    /// Burn's learner returned without running the step loop.
    #[error("the learner never ran the step loop")]
    NeverRan,
    /// Signals can't be caught.
    #[error("cannot watch for Ctrl-C: {0}")]
    Signals(#[from] ctrlc::Error),
}

fn list(changed: &[String]) -> String {
    match changed.is_empty() {
        true => String::new(),
        false => format!("; these are not: {}", changed.join(", ")),
    }
}

impl TrainError {
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
