//! The folder of generations: writing, finding, retiring.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;

use super::error::{CheckpointError, Damage};
use super::manifest::{MANIFEST, Manifest, sync_dir, write_file};
use super::state::{STATE, TrainingState};
use super::tensors::{self, Content};
use crate::recipe::Moments;

pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
const CONFIG: &str = "config.toml";
const PREFIX: &str = "step-";
const ASIDE: &str = ".tmp";

/// The checkpoints of one run: the folder `RUN/checkpoints`.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    dir: PathBuf,
}

/// One checkpoint: the folder `step-N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// N: the steps done when it was written.
    pub step: u64,
    /// The folder.
    pub dir: PathBuf,
}

/// All that a checkpoint holds beside its state.
pub struct Snapshot<'a, M> {
    /// The model, on any device.
    pub model: &'a M,
    /// The optimiser's moments.
    pub moments: &'a Moments,
    /// The run's `config.toml`.
    pub config: &'a str,
}

/// What a search for the newest whole generation found.
#[derive(Debug)]
pub struct Newest {
    /// The generation and its state; `None` where there are no generations at all.
    pub generation: Option<(Generation, TrainingState)>,
    /// Newer ones that are damaged, and how.
    pub skipped: Vec<(Generation, CheckpointError)>,
}

impl CheckpointStore {
    /// The checkpoints in `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// All generations, oldest first, whole or not. Unfinished ones (`step-N.tmp`) are not listed.
    ///
    /// # Errors
    /// When the folder exists but can't be read.
    pub fn generations(&self) -> Result<Vec<Generation>, CheckpointError> {
        let mut found: Vec<Generation> = self
            .entries()?
            .into_iter()
            .filter_map(|dir| {
                let number = dir.file_name()?.to_str()?.strip_prefix(PREFIX)?;
                let step: u64 = number.parse().ok()?;
                (number == step.to_string()).then_some(Generation { step, dir })
            })
            .collect();
        found.sort_unstable_by_key(|generation| generation.step);
        Ok(found)
    }

    /// The newest generation that is whole, its files held against its manifest.
    ///
    /// # Errors
    /// When there are generations but none is whole, or the folder can't be read.
    pub fn newest_whole(&self) -> Result<Newest, CheckpointError> {
        let mut skipped = Vec::new();
        for generation in self.generations()?.into_iter().rev() {
            match generation.verify() {
                Ok(state) => {
                    return Ok(Newest {
                        generation: Some((generation, state)),
                        skipped,
                    });
                }
                Err(error) => skipped.push((generation, error)),
            }
        }
        let generations = skipped.len();
        match skipped.into_iter().next() {
            None => Ok(Newest {
                generation: None,
                skipped: Vec::new(),
            }),
            Some((_, newest)) => Err(CheckpointError::NoneWhole {
                dir: self.dir.clone(),
                generations,
                newest: Box::new(newest),
            }),
        }
    }

    /// Writes a generation: aside, to the disk itself, manifest last, then renamed. A damaged generation of the same
    /// step is replaced.
    ///
    /// # Errors
    /// When the disk or the device fails or a value is not finite; generations written before are untouched.
    pub fn save<M: Module>(
        &self,
        snapshot: &Snapshot<'_, M>,
        state: &TrainingState,
    ) -> Result<Generation, CheckpointError> {
        let name = format!("{PREFIX}{}", state.step);
        let dir = self.dir.join(&name);
        let aside = self.dir.join(format!("{name}{ASIDE}"));
        fs::create_dir_all(&self.dir).map_err(CheckpointError::io("create", &self.dir))?;
        remove(&aside)?;
        let result = self.write_and_rename(&aside, &dir, snapshot, state);
        if result.is_err() {
            // What went wrong is the error to report; the remainder is cleared at the next start if not now.
            let _ = fs::remove_dir_all(&aside);
        }
        result.map(|()| Generation {
            step: state.step,
            dir,
        })
    }

    fn write_and_rename<M: Module>(
        &self,
        aside: &Path,
        dir: &Path,
        snapshot: &Snapshot<'_, M>,
        state: &TrainingState,
    ) -> Result<(), CheckpointError> {
        fs::create_dir(aside).map_err(CheckpointError::io("create", aside))?;
        let write = |name, content| tensors::write(aside, name, snapshot.model, content);
        let weights = write(WEIGHTS, Content::Weights)?;
        // The weights find their way to the disk while the moments are written.
        let (weights, moments) = std::thread::scope(|scope| {
            let weights = scope.spawn(|| weights.sync(aside));
            let moments = write(OPTIMIZER, Content::Moments(snapshot.moments));
            let moments = moments.and_then(|written| written.sync(aside));
            let weights = weights.join();
            let weights = weights.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (weights, moments)
        });
        let manifest = Manifest {
            format: super::manifest::FORMAT,
            files: vec![
                weights?,
                moments?,
                write_file(aside, STATE, &json(STATE, state)?)?,
                write_file(aside, CONFIG, snapshot.config.as_bytes())?,
            ],
        };
        write_file(aside, MANIFEST, &json(MANIFEST, &manifest)?)?;
        sync_dir(aside).map_err(CheckpointError::io("sync", aside))?;
        remove(dir)?;
        fs::rename(aside, dir).map_err(CheckpointError::io("rename", aside))?;
        sync_dir(&self.dir).map_err(CheckpointError::io("sync", &self.dir))
    }

    /// Deletes all but the `keep` newest generations and those for which `is_kept` says so; a `keep` of 0 keeps all.
    ///
    /// # Errors
    /// When one can't be deleted.
    pub fn retire(
        &self,
        keep: usize,
        is_kept: impl Fn(&Generation) -> bool,
    ) -> Result<(), CheckpointError> {
        let mut generations = self.generations()?;
        let surplus = match keep {
            0 => 0,
            keep => generations.len().saturating_sub(keep),
        };
        generations.truncate(surplus);
        generations.retain(|generation| !is_kept(generation));
        for generation in generations {
            // Renamed first: an interrupted deletion leaves no half-deleted generation behind.
            let aside = self.dir.join(format!("{PREFIX}{}{ASIDE}", generation.step));
            remove(&aside)?;
            fs::rename(&generation.dir, &aside)
                .map_err(CheckpointError::io("rename", &generation.dir))?;
            remove(&aside)?;
        }
        Ok(())
    }

    /// What interrupted writes have left behind.
    ///
    /// # Errors
    /// When the folder exists but can't be read.
    pub fn unfinished(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let mut entries = self.entries()?;
        entries.retain(|entry| {
            let name = entry.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(ASIDE))
        });
        Ok(entries)
    }

    /// Deletes what interrupted writes have left behind.
    ///
    /// # Errors
    /// When it can't be deleted.
    pub fn clear_unfinished(&self) -> Result<(), CheckpointError> {
        self.unfinished()?.iter().try_for_each(|dir| remove(dir))
    }

    fn entries(&self) -> Result<Vec<PathBuf>, CheckpointError> {
        let failed = || CheckpointError::io("list", &self.dir);
        match fs::read_dir(&self.dir) {
            Ok(entries) => entries
                .map(|entry| entry.map(|entry| entry.path()).map_err(failed()))
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failed()(error)),
        }
    }
}

impl Generation {
    /// Holds every file against the manifest and reads the state.
    ///
    /// # Errors
    /// Names every damaged file.
    pub fn verify(&self) -> Result<TrainingState, CheckpointError> {
        let manifest = Manifest::verify(&self.dir)?;
        let missing: Vec<Damage> = [WEIGHTS, OPTIMIZER, STATE]
            .into_iter()
            .filter(|name| !manifest.lists(name))
            .map(|name| Damage::Unreadable {
                file: MANIFEST.to_string(),
                reason: format!("it does not list {name}"),
            })
            .collect();
        if missing.is_empty() {
            TrainingState::read(&self.dir, self.step)
        } else {
            Err(CheckpointError::Damaged {
                dir: self.dir.clone(),
                damages: missing,
            })
        }
    }

    /// Puts the weights into `module`, on the devices its parameters are on. Call [`verify`](Self::verify) first.
    ///
    /// # Errors
    /// When the weights are those of another model: the first tensor that differs is named.
    pub fn load_weights<M: Module>(&self, module: M) -> Result<M, CheckpointError> {
        tensors::read_weights(&self.dir, WEIGHTS, module)
    }

    /// Reads the optimiser's moments for the parameters of `module` onto `device`, which has no autodiff.
    ///
    /// # Errors
    /// As [`load_weights`](Self::load_weights).
    pub fn load_moments<M: Module>(
        &self,
        module: &M,
        device: &Device,
    ) -> Result<Moments, CheckpointError> {
        tensors::read_moments(&self.dir, OPTIMIZER, module, device)
    }
}

fn remove(dir: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CheckpointError::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CheckpointError> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| CheckpointError::Serialize {
            what,
            reason: error.to_string(),
        })?;
    text.push(b'\n');
    Ok(text)
}
