//! `metrics.jsonl`: one JSON object per step, per evaluation, and per event that is neither, each with its `kind`.
//!
//! Written by the step loop and not as a Burn `MetricLogger`: that one runs two threads away, can't report a full disk,
//! and can't be waited for before a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::diagnostics::Diagnostics;
use super::error::TrainError;
use super::metrics::{Evaluation, StepRecord};
use super::tasks::TaskRecord;
use super::tensorboard::EventFile;
use crate::guard::Action;
use crate::json::as_read;

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// An optimiser step.
    Step(StepRecord),
    /// An evaluation.
    Evaluation {
        /// Steps done.
        step: u64,
        /// Tokens trained on.
        tokens: u64,
        /// Its figures.
        #[serde(flatten)]
        evaluation: Evaluation,
    },
    /// What each layer did in a step, and before it in the forward pass.
    Diagnostics(Box<Diagnostics>),
    /// Questions were asked.
    Task {
        /// Steps done.
        step: u64,
        /// Tokens trained on.
        tokens: u64,
        /// How well they were answered.
        #[serde(flatten)]
        record: TaskRecord,
    },
    /// A router has collapsed, or has recovered.
    Router {
        /// The step that showed it.
        step: u64,
        /// The block, from 0.
        layer: usize,
        /// Which of the two.
        collapsed: bool,
        /// A sentence.
        message: String,
    },
    /// A step went wrong.
    Guard {
        /// Where the run stands afterwards: the step itself, or that of the checkpoint it went back to.
        step: u64,
        /// The step that went wrong.
        refused: u64,
        /// What followed.
        action: Action,
        /// A sentence.
        message: String,
    },
    /// A field of the configuration was changed on resume, as the user allowed.
    Change {
        /// The step the run continued from.
        step: u64,
        /// The field.
        field: String,
        /// Its value before, as JSON; `unset` where there was none.
        from: String,
        /// Its value from here on.
        to: String,
    },
}

impl Record {
    /// The step it belongs to.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(record) => record.step,
            Self::Diagnostics(record) => record.step,
            Self::Evaluation { step, .. }
            | Self::Task { step, .. }
            | Self::Router { step, .. }
            | Self::Guard { step, .. }
            | Self::Change { step, .. } => *step,
        }
    }
}

/// The records of the log at `path`, up to the first line that is torn: that of a run in progress, or what a crash left behind. Without
/// such a file, none.
///
/// # Errors
/// When the file system refuses.
pub fn read_log(path: &Path) -> Result<Vec<Record>, TrainError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(TrainError::io("open", path))?,
    };
    let (mut reader, mut line, mut records) = (BufReader::new(file), Vec::new(), Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line);
        read.map_err(TrainError::io("read", path))?;
        match serde_json::from_slice(&line) {
            Ok(record) if line.ends_with(b"\n") => records.push(record),
            _ => return Ok(records),
        }
    }
}

/// The open `metrics.jsonl` of a run.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    /// What the lines up to here say.
    said: Said,
    /// TensorBoard's copy, if one is asked for.
    events: Option<EventFile>,
}

/// What a log says about the run as a whole.
#[derive(Debug, Default)]
struct Said {
    /// Layers whose routers have collapsed, and not recovered.
    collapsed: BTreeSet<usize>,
    /// Bits per byte of every evaluation, by step.
    evaluations: BTreeMap<u64, f64>,
    /// Steps and the tasks that were asked after them.
    tasks: BTreeSet<(u64, String)>,
    /// Loss of the last step.
    loss: Option<f64>,
    /// Steps that the run went back to pass over.
    rolled_back: BTreeSet<u64>,
}

impl MetricsLog {
    /// Opens the log at `path` for a run that stands at `step`: later records, and what a crash tore, are cut off.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn open(path: &Path, step: u64) -> Result<Self, TrainError> {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(TrainError::io("open", path))?;
        let mut log = Self {
            path: path.to_path_buf(),
            file,
            said: Said::default(),
            events: None,
        };
        log.cut(step)?;
        Ok(log)
    }

    /// From here on, writes figures to a new TensorBoard event file in `dir` too. The run stands at `step`.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn copy_to_tensorboard(&mut self, dir: &Path, step: u64) -> Result<(), TrainError> {
        let events = EventFile::create(dir, step).map_err(TrainError::io("create", dir))?;
        self.events = Some(events);
        Ok(())
    }

    /// Cuts off what a run that stands at `step` has not done.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn cut(&mut self, step: u64) -> Result<(), TrainError> {
        let read = self.file.seek(SeekFrom::Start(0));
        let read = read.and_then(|_| valid_prefix(&self.file, step));
        let (keep, said) = read.map_err(TrainError::io("read", &self.path))?;
        self.said = said;
        let cut = self.file.set_len(keep);
        cut.map_err(TrainError::io("cut", &self.path))?;
        self.copy(|events| events.restart(step))
    }

    /// Layers whose routers have collapsed, and not recovered.
    pub fn collapsed(&self) -> &BTreeSet<usize> {
        &self.said.collapsed
    }

    /// Bits per byte of every evaluation, by step.
    pub fn evaluations(&self) -> &BTreeMap<u64, f64> {
        &self.said.evaluations
    }

    /// Whether the answers to `task` after `step` are in it.
    pub fn has_task(&self, step: u64, task: &str) -> bool {
        let tasks = &self.said.tasks;
        tasks.iter().any(|(at, name)| *at == step && name == task)
    }

    /// Loss of the last step that was taken.
    pub fn loss(&self) -> Option<f64> {
        self.said.loss
    }

    /// Steps that the run went back to pass over.
    pub fn rolled_back(&self) -> &BTreeSet<u64> {
        &self.said.rolled_back
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        let mut line = serde_json::to_vec(record)
            .map_err(|error| TrainError::io("write", &self.path)(error.into()))?;
        line.push(b'\n');
        let written = self.file.write_all(&line);
        written.map_err(TrainError::io("write", &self.path))?;
        self.said.take(&as_read(record.clone(), &line));
        self.copy(|events| events.write(record))
    }

    fn copy(
        &mut self,
        write: impl FnOnce(&mut EventFile) -> std::io::Result<()>,
    ) -> Result<(), TrainError> {
        let Some(events) = &mut self.events else {
            return Ok(());
        };
        write(events).map_err(|error| TrainError::io("write", events.path())(error))
    }

    /// Brings all lines to the disk itself.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn sync(&self) -> Result<(), TrainError> {
        let synced = self.file.sync_data();
        synced.map_err(TrainError::io("sync", &self.path))
    }
}

impl Said {
    fn take(&mut self, record: &Record) {
        match record {
            Record::Router {
                layer,
                collapsed: true,
                ..
            } => {
                self.collapsed.insert(*layer);
            }
            Record::Router { layer, .. } => {
                self.collapsed.remove(layer);
            }
            Record::Evaluation {
                step, evaluation, ..
            } => {
                self.evaluations.insert(*step, evaluation.bits_per_byte);
            }
            Record::Task { step, record, .. } => {
                self.tasks.insert((*step, record.task.clone()));
            }
            Record::Step(record) => self.loss = Some(record.loss),
            Record::Guard {
                action: Action::Rollback,
                refused,
                ..
            } => {
                self.rolled_back.insert(*refused);
            }
            Record::Diagnostics(_) | Record::Guard { .. } | Record::Change { .. } => {}
        }
    }
}

/// Bytes up to the first line that is torn or belongs to a step after `step`, and what the lines before it say.
fn valid_prefix(file: &File, step: u64) -> std::io::Result<(u64, Said)> {
    let mut reader = BufReader::new(file);
    let (mut keep, mut line, mut said) = (0, Vec::new(), Said::default());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        let whole = line.ends_with(b"\n");
        match serde_json::from_slice::<Record>(&line) {
            Ok(record) if whole && record.step() <= step => said.take(&record),
            _ => return Ok((keep, said)),
        }
        keep += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::MISREAD;

    /// Which checkpoint is the best one does not depend on whether the run was cut off.
    #[test]
    fn evaluations_are_those_that_a_resumed_run_reads() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path, 0).unwrap();
        for (step, bits_per_byte) in (1..).zip(MISREAD) {
            let evaluation = Evaluation {
                nats_per_token: 1.0,
                bits_per_byte,
            };
            let record = Record::Evaluation {
                step,
                tokens: 8 * step,
                evaluation,
            };
            log.write(&record).unwrap();
        }
        let resumed = MetricsLog::open(&path, 9).unwrap();
        assert_eq!(log.evaluations().len(), MISREAD.len());
        assert_eq!(log.evaluations(), resumed.evaluations());
    }
}
