//! The run directory: created once, locked while in use, its `config.toml` the truth about the run.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::TrainError;
use super::tensorboard::TENSORBOARD;
use crate::checkpoint::{CheckpointStore, sync_dir};
use crate::run::{BadConfig, RunConfig};

/// The configuration's file name.
pub const CONFIG: &str = "config.toml";
/// The log's file name.
pub const METRICS: &str = "metrics.jsonl";
/// The results' file name.
pub const SUMMARY: &str = "summary.json";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The folder of steps that went wrong.
pub const INCIDENTS: &str = "incidents";
pub(super) const LOCK: &str = ".lock";
const CONFIG_ASIDE: &str = ".config.toml.tmp";
const PROBE: &str = ".hybridnorm-probe-";

/// Fields that may differ on resume: they change what is reported and kept, or where files lie whose content is checked
/// by its hash, but not what is computed.
const FREE: &[&str] = &[
    "training.eval_every",
    "training.eval_sequences",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "training.update_ratio_every",
    "training.diagnostics_every",
    "training.diagnostics_sequences",
    "training.keep_best",
    "training.keep_every",
    "evaluation.tasks",
    "evaluation.every",
    "evaluation.questions",
    "data.path",
    "data.tokenizer",
];

/// An open run directory. Nobody else can open it while this value lives.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    config: String,
    /// Whether `config.toml` still says something else.
    is_stale: bool,
    _lock: File,
}

impl RunDir {
    /// Creates the directory (parents included; one that is empty is taken as it is) and stores `config` in it.
    ///
    /// # Errors
    /// When it already holds anything, or can't be written: then nothing is left behind.
    pub fn create(path: &Path, config: &RunConfig) -> Result<Self, TrainError> {
        let text = to_toml(&path.join(CONFIG), config)?;
        let existed = path.is_dir();
        fs::create_dir_all(path).map_err(TrainError::io("create", path))?;
        // Whoever holds the lock owns the directory; nobody else changes anything in it, not even to tidy up.
        let lock = lock(path)?;
        refuse_if_taken(path)?;
        if let Err(error) = store_config(path, &text) {
            // The error is the one to report. Only what this process made goes, and only if nothing else is there.
            if !existed {
                let _ = fs::remove_file(path.join(LOCK));
                let _ = fs::remove_dir(path);
            }
            return Err(error);
        }
        Ok(Self {
            path: path.to_path_buf(),
            config: text,
            is_stale: false,
            _lock: lock,
        })
    }

    /// Refuses a directory that a run could not be created in, without leaving anything behind.
    ///
    /// # Errors
    /// When it already holds anything, something else stands at `path`, or the nearest directory above it cannot be written to.
    pub fn probe(path: &Path) -> Result<(), TrainError> {
        if path.is_dir() {
            refuse_if_taken(path)?;
        } else if path.exists() {
            let path = path.to_path_buf();
            return Err(TrainError::NoDirectory { path });
        }
        let nearest = path.ancestors().find(|dir| dir.exists());
        let nearest = match nearest {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let probe = nearest.join(format!("{PROBE}{}", std::process::id()));
        File::create(&probe).map_err(TrainError::io("create", path))?;
        fs::remove_file(&probe).map_err(TrainError::io("remove", &probe))
    }

    /// Opens the directory of a run to be continued as `requested`, and tells which of the fields named in `allow` have changed. Of a run
    /// that has not taken a step, as one that was imported, all but the model may differ. Nothing is changed in it before
    /// [`keep_config`](Self::keep_config).
    ///
    /// # Errors
    /// When it holds no run, is in use, or `requested` differs from the stored configuration in a field that changes
    /// what is computed and is not in `allow`, or does not differ in one that is.
    pub fn resume(
        path: &Path,
        requested: &RunConfig,
        allow: &[String],
    ) -> Result<(Self, Vec<Difference>), TrainError> {
        let stored = stored_config(path)?;
        let mut changes = changed_mathematics(&stored, requested)?;
        if is_untrained(path)? {
            changes.retain(|changed| is_of_the_model(&changed.field));
        }
        if let Some(field) = allow
            .iter()
            .find(|field| !changes.iter().any(|changed| changed.field == **field))
        {
            return Err(TrainError::NothingToAllow {
                field: field.clone(),
                changed: changes.into_iter().map(|changed| changed.field).collect(),
            });
        }
        if let Some(changed) = changes
            .iter()
            .find(|changed| !allow.contains(&changed.field))
        {
            return Err(TrainError::ConfigChanged {
                field: changed.field.clone(),
                stored: changed.left.clone(),
                requested: changed.right.clone(),
            });
        }
        let lock = lock(path)?;
        let run = Self {
            path: path.to_path_buf(),
            config: to_toml(&path.join(CONFIG), requested)?,
            is_stale: stored != *requested,
            _lock: lock,
        };
        Ok((run, changes))
    }

    /// Stores the configuration that the run is continued with, once nothing else can refuse it.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn keep_config(&mut self) -> Result<(), TrainError> {
        if self.is_stale {
            store_config(&self.path, &self.config)?;
            self.is_stale = false;
        }
        Ok(())
    }

    /// The run's configuration as text.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Where steps that went wrong are written down.
    pub fn incidents(&self) -> PathBuf {
        self.path.join(INCIDENTS)
    }

    /// Where the metrics go.
    pub fn metrics(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The folder of TensorBoard's event files.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join(TENSORBOARD)
    }

    /// The run's checkpoints.
    pub fn checkpoints(&self) -> CheckpointStore {
        CheckpointStore::new(self.path.join(CHECKPOINTS))
    }
}

/// The configuration stored in a run directory. A caller that resumes overlays the user's flags on it.
///
/// # Errors
/// When there is none, or it can't be understood.
pub fn stored_config(path: &Path) -> Result<RunConfig, TrainError> {
    let file = path.join(CONFIG);
    let text = fs::read_to_string(&file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => TrainError::NoRun {
            path: path.to_path_buf(),
        },
        _ => TrainError::io("read", &file)(error),
    })?;
    RunConfig::from_toml(&text).map_err(|BadConfig { line, reason }| TrainError::ConfigFile {
        path: file,
        reason: match line {
            Some(line) => format!("line {line}: {reason}"),
            None => reason,
        },
    })
}

/// Whether the run in `path` has a model but has not taken a step, as one that was imported.
fn is_untrained(path: &Path) -> Result<bool, TrainError> {
    let generations = CheckpointStore::new(path.join(CHECKPOINTS)).generations()?;
    Ok(generations.last().is_some_and(|newest| newest.step == 0))
}

/// Whether a field decides what a model is that has its parameters already.
fn is_of_the_model(field: &str) -> bool {
    let of = |table: &str| field == table || field.starts_with(&format!("{table}."));
    (of("model") && !of("model.init")) || of("sparse")
}

/// A field that two configurations do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field, e.g. `model.d_model`.
    pub field: String,
    /// Its value in the first, as JSON; `unset` where absent.
    pub left: String,
    /// Its value in the second.
    pub right: String,
}

/// Every field in which `left` and `right` differ, in alphabetical order.
///
/// # Errors
/// When a configuration can't be represented.
pub fn differing_fields(
    left: &RunConfig,
    right: &RunConfig,
) -> Result<Vec<Difference>, TrainError> {
    let value = |config: &RunConfig| {
        serde_json::to_value(config).map_err(|error| TrainError::ConfigFile {
            path: CONFIG.into(),
            reason: error.to_string(),
        })
    };
    let mut found = Vec::new();
    compare("", &value(left)?, &value(right)?, &mut found);
    Ok(found)
}

/// Those of them that change what is computed.
///
/// # Errors
/// When a configuration can't be represented.
pub fn changed_mathematics(
    left: &RunConfig,
    right: &RunConfig,
) -> Result<Vec<Difference>, TrainError> {
    let mut changes = differing_fields(left, right)?;
    changes.retain(|changed| !FREE.contains(&changed.field.as_str()));
    Ok(changes)
}

fn compare(field: &str, left: &Value, right: &Value, found: &mut Vec<Difference>) {
    if left == right {
        return;
    }
    let (Value::Object(a), Value::Object(b)) = (left, right) else {
        let show = |value: &Value| match value {
            Value::Null => "unset".to_string(),
            value => value.to_string(),
        };
        found.push(Difference {
            field: field.to_string(),
            left: show(left),
            right: show(right),
        });
        return;
    };
    let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let field = match field {
            "" => key.clone(),
            field => format!("{field}.{key}"),
        };
        let of = |object: &serde_json::Map<String, Value>| object.get(key).cloned();
        let (left, right) = (of(a).unwrap_or_default(), of(b).unwrap_or_default());
        compare(&field, &left, &right, found);
    }
}

/// `config` as TOML, read back to make sure that nothing is lost.
fn to_toml(file: &Path, config: &RunConfig) -> Result<String, TrainError> {
    let failed = |reason: String| TrainError::ConfigFile {
        path: file.to_path_buf(),
        reason,
    };
    let text = toml::to_string(config).map_err(|error| failed(one_line(&error.to_string())))?;
    let back = RunConfig::from_toml(&text).map_err(|bad| failed(bad.reason))?;
    match differing_fields(&back, config)?.into_iter().next() {
        None => Ok(text),
        Some(lost) => {
            let Difference {
                field, left, right, ..
            } = lost;
            Err(failed(format!(
                "{field} = {right} can't be stored, it reads back as {left}"
            )))
        }
    }
}

/// Refuses a directory that holds more than what a process leaves that was killed while creating it.
fn refuse_if_taken(path: &Path) -> Result<(), TrainError> {
    let leftover = |name: &OsStr| {
        name == LOCK
            || name == CONFIG_ASIDE
            || name.as_encoded_bytes().starts_with(PROBE.as_bytes())
    };
    let mut entries = fs::read_dir(path).map_err(TrainError::io("read", path))?;
    if entries.any(|entry| entry.is_ok_and(|entry| !leftover(&entry.file_name()))) {
        let path = path.to_path_buf();
        return Err(TrainError::RunExists { path });
    }
    Ok(())
}

fn store_config(path: &Path, text: &str) -> Result<(), TrainError> {
    let aside = path.join(CONFIG_ASIDE);
    let file = path.join(CONFIG);
    let write = || {
        let mut out = File::create(&aside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&aside, &file)?;
        sync_dir(path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&aside);
        TrainError::io("write", &file)(error)
    })
}

/// Locks the directory until the returned file is dropped. The system releases the lock of a killed process.
fn lock(path: &Path) -> Result<File, TrainError> {
    let name = path.join(LOCK);
    let file = File::create(&name).map_err(TrainError::io("write", &name))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(TrainError::Locked {
            path: path.to_path_buf(),
        }),
        // A file system without locks is no reason not to train on it.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
