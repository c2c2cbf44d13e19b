//! `metrics.jsonl`: one JSON object per step, per evaluation and per router that collapses or recovers, each with its `kind`.
//!
//! Written by the step loop and not as a Burn `MetricLogger`: that one runs two threads away, can't report a full disk,
//! and can't be waited for before a checkpoint.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::metrics::{Evaluation, StepRecord};

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
}

impl Record {
    /// The step it belongs to.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(record) => record.step,
            Self::Evaluation { step, .. } | Self::Router { step, .. } => *step,
        }
    }
}

/// The open `metrics.jsonl` of a run.
#[derive(Debug)]
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    collapsed: BTreeSet<usize>,
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
        let (keep, collapsed) = valid_prefix(&file, step).map_err(TrainError::io("read", path))?;
        file.set_len(keep).map_err(TrainError::io("cut", path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            collapsed,
        })
    }

    /// Layers whose routers had collapsed, and not recovered, when the log was opened.
    pub fn collapsed(&self) -> &BTreeSet<usize> {
        &self.collapsed
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
        written.map_err(TrainError::io("write", &self.path))
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

/// Bytes up to the first line that is torn or belongs to a step after `step`, and the layers whose routers have collapsed by then.
fn valid_prefix(file: &File, step: u64) -> std::io::Result<(u64, BTreeSet<usize>)> {
    let mut reader = BufReader::new(file);
    let (mut keep, mut line, mut collapsed) = (0, Vec::new(), BTreeSet::new());
    loop {
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        let whole = line.ends_with(b"\n");
        let record = match serde_json::from_slice::<Record>(&line) {
            Ok(record) if whole && record.step() <= step => record,
            _ => return Ok((keep, collapsed)),
        };
        keep += bytes as u64;
        match record {
            Record::Router {
                layer,
                collapsed: true,
                ..
            } => {
                collapsed.insert(layer);
            }
            Record::Router { layer, .. } => {
                collapsed.remove(&layer);
            }
            Record::Step(_) | Record::Evaluation { .. } => {}
        }
    }
}
