//! A trained model on disk as this program keeps it: one checkpoint of a run, with its configuration and tokenizer, and what it was
//! imported from. Whoever reads a run opens it here.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_core::{ConfigError, Decoder};
use hybridnorm_interop::hugging_face::json_object;
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::checkpoint::{CheckpointStore, Generation, MANIFEST, TrainingState, load_model};
use crate::data::{Tokenizer, TokenizerError};
use crate::engine::{CHECKPOINTS, CONFIG, METRICS, TrainError, stored_config};
use crate::error::Error;
use crate::generate::{Edges, ids};
use crate::run::RunConfig;

/// Where a run keeps what it was imported from.
pub const SOURCE: &str = "source.json";

/// A checkpoint, its run's configuration and tokenizer.
#[derive(Debug)]
pub struct Stored {
    /// The checkpoint.
    pub generation: Generation,
    /// Where the run stood.
    pub state: TrainingState,
    /// The run's configuration; of a checkpoint that was opened by itself, the one it was written under.
    pub config: RunConfig,
    /// The tokenizer it was trained with.
    pub tokenizer: Tokenizer,
    /// What it was imported from, if it was.
    pub published: Option<Published>,
    /// Checkpoints that were passed over, and why.
    pub notes: Vec<String>,
    /// The run's log; a checkpoint that was copied elsewhere has none.
    pub log: Option<PathBuf>,
}

/// What a run was imported from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Published {
    /// The folder.
    pub folder: String,
    /// Its architecture.
    pub model_type: String,
    /// Its `config.json`.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Its `generation_config.json`.
    #[serde(default)]
    pub generation: Map<String, Value>,
}

impl Published {
    /// What the run in `run` was imported from, if it was.
    ///
    /// # Errors
    /// When its note of it is damaged.
    pub fn of_run(run: &Path) -> Result<Option<Self>, TrainError> {
        let path = run.join(SOURCE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(TrainError::io("read", &path))?;
        let read = serde_json::from_slice(&text).map(Some);
        read.map_err(|error| TrainError::ConfigFile {
            path,
            reason: error.to_string(),
        })
    }

    /// Notes it in `run`.
    pub(crate) fn write(&self, run: &Path) -> Result<(), Error> {
        let path = run.join(SOURCE);
        let text = serde_json::to_string_pretty(self).map_err(|error| TrainError::ConfigFile {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        fs::write(&path, text + "\n").map_err(Error::io("write", &path))
    }

    /// What stands before its texts and after them.
    ///
    /// # Errors
    /// When the tokenizer refuses a text.
    pub fn edges(&self, tokenizer: &Tokenizer) -> Result<Edges, TokenizerError> {
        Edges::of_published(tokenizer, &self.config, &self.generation)
    }

    /// What `config.json` says begins a text and ends one, or else `generation_config.json`.
    pub(crate) fn special_tokens(&self) -> (Option<u32>, Vec<u32>) {
        let first = |name| {
            let found = [&self.config, &self.generation].map(|config| config.get(name).map(ids));
            let mut found = found.into_iter().flatten();
            found.find(|ids| !ids.is_empty()).unwrap_or_default()
        };
        let begin = first("bos_token_id").first().copied();
        (begin, first("eos_token_id"))
    }

    /// The `generation_config.json` in `dir`; empty where there is none.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn generation_of(dir: &Path) -> Result<Map<String, Value>, Error> {
        match dir.join("generation_config.json") {
            file if file.is_file() => Ok(json_object(&file)?),
            _ => Ok(Map::new()),
        }
    }
}

impl Stored {
    /// Whether [`open`](Self::open) finds anything in `path`.
    pub fn is_at(path: &Path) -> bool {
        path.join(MANIFEST).is_file() || path.join(CONFIG).is_file()
    }

    /// Opens `path`: a checkpoint, or a run directory, whose newest whole checkpoint counts. `tokenizer` takes the place of the run's own:
    /// `byte` or a `tokenizer.json`.
    ///
    /// # Errors
    /// When it is neither, there is no checkpoint, files are damaged, or the tokenizer is not the one the run was trained with.
    pub fn open(path: &Path, tokenizer: Option<&str>) -> Result<Self, Error> {
        let (generation, state, notes, run) = match path.join(MANIFEST).is_file() {
            true => {
                let generation = checkpoint(path)?;
                let state = generation.verify()?;
                let run = generation.dir.parent().and_then(Path::parent);
                let run = run.map(Path::to_path_buf);
                (generation, state, Vec::new(), run)
            }
            false => {
                let newest = CheckpointStore::new(path.join(CHECKPOINTS)).newest_whole()?;
                let Some((generation, state)) = newest.generation else {
                    let path = path.to_path_buf();
                    return Err(Error::NoCheckpoint { path });
                };
                let skipped = newest.skipped.iter();
                let notes = skipped.map(|(_, error)| format!("skipped: {error}"));
                (generation, state, notes.collect(), Some(path.to_path_buf()))
            }
        };
        // A run's own configuration counts, also where somebody has changed it: weights of another shape are then refused by name.
        let config = stored_config(match path.join(CONFIG).is_file() {
            true => path,
            false => &generation.dir,
        })?;
        let tokenizer = Tokenizer::from_spec(tokenizer.unwrap_or(&config.data.tokenizer))?;
        let identity = tokenizer.identity();
        let of_data = state.data.as_ref();
        if of_data.is_some_and(|data| !data.contains(&identity)) {
            let field = "data.tokenizer";
            let allowed = "the tokenizer the run was trained with: this is another, or the file has changed since";
            return Err(ConfigError::new(field, tokenizer.name(), allowed).into());
        }
        let published = run.as_deref().map(Published::of_run).transpose()?;
        let log = run.map(|run| run.join(METRICS));
        Ok(Self {
            generation,
            state,
            config,
            tokenizer,
            published: published.flatten(),
            notes,
            log: log.filter(|log| log.is_file()),
        })
    }

    /// The model's configuration.
    pub fn model_config(&self) -> ModelConfig {
        self.config.model_config()
    }

    /// The model on `device`.
    ///
    /// # Errors
    /// When the checkpoint is damaged or of another model.
    pub fn load(&self, device: &Device) -> Result<Decoder<FeedForwardLayer>, Error> {
        let dir = &self.generation.dir;
        Ok(load_model(dir, &self.model_config(), device)?)
    }

    /// What stands before its texts and after them.
    ///
    /// # Errors
    /// As [`edges`].
    pub fn edges(&self) -> Result<Edges, Error> {
        Ok(edges(&self.tokenizer, self.published.as_ref())?)
    }
}

/// What stands before and after texts of `tokenizer` in a run: as the model that it was imported from has it, or else the end of a document.
///
/// # Errors
/// When the tokenizer of a model of this program knows no end of a document, or the tokenizer refuses a text.
pub fn edges(
    tokenizer: &Tokenizer,
    published: Option<&Published>,
) -> Result<Edges, TokenizerError> {
    match published {
        Some(published) => published.edges(tokenizer),
        None => Ok(Edges::of_documents(tokenizer.end_of_document()?)),
    }
}

/// The checkpoint in a folder called `step-N`.
fn checkpoint(path: &Path) -> Result<Generation, Error> {
    // `checkpoints/step-3/..` and `.` have names too.
    let dir = fs::canonicalize(path).map_err(Error::io("find", path))?;
    let name = dir.file_name().and_then(|name| name.to_str());
    let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
    let step = step.ok_or_else(|| {
        let allowed = "a folder called step-N, as `train` writes it";
        ConfigError::new("checkpoint", path.display(), allowed)
    })?;
    Ok(Generation { step, dir })
}
