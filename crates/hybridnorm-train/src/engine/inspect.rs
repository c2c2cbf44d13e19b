//! What state a run directory is in, without changing it.

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::TrainError;
use super::log::Record;
use super::run_dir::{LOCK, stored_config};
use super::{CHECKPOINTS, METRICS};
use crate::checkpoint::{CheckpointError, CheckpointStore, Generation};

/// The state of a run directory.
#[derive(Debug, Serialize)]
pub struct Inspection {
    /// The directory.
    pub run: PathBuf,
    /// Whether a run is training in it right now.
    pub in_use: bool,
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// What the log holds.
    pub metrics: LogState,
    /// Every checkpoint, oldest first.
    pub generations: Vec<GenerationState>,
    /// Remainders of interrupted writes; a resumed run deletes them.
    pub unfinished: Vec<PathBuf>,
    /// The step a resumed run would continue from, 0 where there is no checkpoint yet; `None` where it would refuse.
    pub resumes_from: Option<u64>,
}

/// What a `metrics.jsonl` holds.
#[derive(Debug, Default, Serialize)]
pub struct LogState {
    /// Whole lines.
    pub records: u64,
    /// The step of the last one; `None` where there is none.
    pub last_step: Option<u64>,
    /// Bytes behind them that are no record: a resumed run cuts them off.
    pub torn_bytes: u64,
}

/// What is known of a checkpoint.
#[derive(Debug, Serialize)]
pub struct GenerationState {
    /// Steps done when it was written.
    pub step: u64,
    /// The folder.
    pub dir: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// Tokens trained on; `None` where it is damaged.
    pub tokens: Option<u64>,
    /// Steps that had been refused; `None` where it is damaged.
    pub refused: Option<Vec<u64>>,
    /// What is wrong with it; `None` where it is whole.
    pub damage: Option<String>,
}

impl Inspection {
    /// Holds every file of every checkpoint of the run in `path` against its manifest, and looks at the rest.
    ///
    /// # Errors
    /// When `path` holds no run, its configuration can't be understood, or the file system refuses.
    pub fn of(path: &Path) -> Result<Self, TrainError> {
        let config = stored_config(path)?;
        let store = CheckpointStore::new(path.join(CHECKPOINTS));
        let generations = store.generations()?;
        let generations = generations.iter().map(GenerationState::of);
        let generations: Vec<GenerationState> = generations.collect::<Result<_, _>>()?;
        let whole = generations.iter().rfind(|found| found.damage.is_none());
        let resumes_from = match whole {
            Some(newest) => Some(newest.step),
            None => generations.is_empty().then_some(0),
        };
        Ok(Self {
            run: path.to_path_buf(),
            in_use: is_in_use(&path.join(LOCK)),
            steps: config.training.steps,
            metrics: LogState::of(&path.join(METRICS))?,
            generations,
            unfinished: store.unfinished()?,
            resumes_from,
        })
    }

    /// Checkpoints that are damaged.
    pub fn damaged(&self) -> usize {
        let damage = self.generations.iter().filter_map(|g| g.damage.as_ref());
        damage.count()
    }
}

impl GenerationState {
    fn of(generation: &Generation) -> Result<Self, CheckpointError> {
        let listed = fs::read_dir(&generation.dir);
        let listed = listed.map_err(CheckpointError::io("list", &generation.dir))?;
        // What can't be asked for its size is told of as damage.
        let sizes = listed.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
        let bytes = sizes.sum();
        let found = generation.verify();
        let state = found.as_ref().ok();
        Ok(Self {
            step: generation.step,
            dir: generation.dir.clone(),
            bytes,
            tokens: state.map(|state| state.tokens),
            refused: state.map(|state| state.guard.refused().to_vec()),
            damage: found.as_ref().err().map(ToString::to_string),
        })
    }
}

impl LogState {
    fn of(path: &Path) -> Result<Self, TrainError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            file => file.map_err(TrainError::io("open", path))?,
        };
        let length = file.metadata().map_err(TrainError::io("read", path))?.len();
        let (mut reader, mut state) = (BufReader::new(file), Self::default());
        let (mut line, mut whole) = (Vec::new(), 0);
        loop {
            line.clear();
            let bytes = reader.read_until(b'\n', &mut line);
            let bytes = bytes.map_err(TrainError::io("read", path))?;
            let record = serde_json::from_slice::<Record>(&line);
            let (true, Ok(record)) = (line.ends_with(b"\n"), record) else {
                break;
            };
            whole += bytes as u64;
            state.records += 1;
            state.last_step = Some(record.step());
        }
        state.torn_bytes = length.saturating_sub(whole);
        Ok(state)
    }
}

/// Whether somebody holds the lock. A file system without locks holds none.
fn is_in_use(lock: &Path) -> bool {
    let locked = |file: File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    File::open(lock).is_ok_and(locked)
}
