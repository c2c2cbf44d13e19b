//! The model to be exported, and what its run says of it.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_core::Decoder;
use hybridnorm_interop::export::SpecialTokens;
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::ExportError;
use crate::checkpoint::{
    CheckpointError, CheckpointStore, Generation, MANIFEST, TrainingState, load_model,
};
use crate::data::Tokenizer;
use crate::engine::{CHECKPOINTS, CONFIG, Evaluation, METRICS, Record, StepRecord, stored_config};
use crate::import::SOURCE;
use crate::run::RunConfig;

/// A checkpoint, its run's configuration and tokenizer.
#[derive(Debug)]
pub struct Source {
    /// The checkpoint.
    pub generation: Generation,
    /// Where the run stood.
    pub state: TrainingState,
    /// The configuration it was written under.
    pub config: RunConfig,
    /// The tokenizer it was trained with.
    pub tokenizer: Tokenizer,
    /// Checkpoints that were passed over, and why.
    pub notes: Vec<String>,
    /// What it was imported from, if it was.
    pub published: Option<Published>,
    /// The run's log; a checkpoint that was copied elsewhere has none.
    log: Option<PathBuf>,
}

/// What `import` notes in a run.
#[derive(Debug, Clone, Deserialize)]
pub struct Published {
    /// The folder it came from.
    pub folder: String,
    /// Its architecture.
    pub model_type: String,
    /// Its `config.json`.
    #[serde(default)]
    pub config: Map<String, Value>,
}

impl Source {
    /// Opens `path`, a run directory, whose newest whole checkpoint counts, or a checkpoint.
    ///
    /// # Errors
    /// When it is neither, files are damaged, or the tokenizer is not the run's.
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let (generation, state, notes, run) =
            match (path.join(MANIFEST).is_file(), path.join(CONFIG).is_file()) {
                (true, _) => {
                    let generation = checkpoint(path)?;
                    let state = generation.verify()?;
                    let run = generation
                        .dir
                        .parent()
                        .and_then(Path::parent)
                        .map(Path::to_path_buf);
                    (generation, state, Vec::new(), run)
                }
                (false, true) => {
                    let newest = CheckpointStore::new(path.join(CHECKPOINTS)).newest_whole()?;
                    let notes = newest
                        .skipped
                        .iter()
                        .map(|(_, error): &(_, CheckpointError)| format!("skipped: {error}"));
                    let notes = notes.collect();
                    let path = path.to_path_buf();
                    let Some((generation, state)) = newest.generation else {
                        return Err(ExportError::NoCheckpoint { path });
                    };
                    (generation, state, notes, Some(path))
                }
                _ => {
                    let path = path.to_path_buf();
                    return Err(ExportError::NoModel { path });
                }
            };
        let config = stored_config(&generation.dir)?;
        let tokenizer = Tokenizer::from_spec(&config.data.tokenizer)?;
        let identity = tokenizer.identity();
        if state
            .data
            .as_ref()
            .is_some_and(|data| !data.contains(&identity))
        {
            let name = tokenizer.name();
            return Err(ExportError::Tokenizer { name });
        }
        let beside = |name: &str| {
            run.as_ref()
                .map(|run| run.join(name))
                .filter(|path| path.is_file())
        };
        let log = beside(METRICS);
        let published = beside(SOURCE).and_then(|path| json(&path));
        Ok(Self {
            generation,
            state,
            config,
            tokenizer,
            notes,
            published,
            log,
        })
    }

    /// What begins and ends a text: as the published configuration has it, or else as in training.
    ///
    /// # Errors
    /// When nothing is known of it.
    pub fn special_tokens(&self) -> Result<SpecialTokens, ExportError> {
        let known = Some(self.tokenizer.vocab_size());
        let published = |name: &str| {
            let found = self
                .published
                .as_ref()
                .and_then(|published| published.config.get(name));
            found.map(ids).unwrap_or_default()
        };
        let end = published("eos_token_id");
        if !end.is_empty() {
            let begin = published("bos_token_id").first().copied();
            return Ok(SpecialTokens { begin, end, known });
        }
        let end = self.tokenizer.end_of_document()?;
        Ok(SpecialTokens {
            begin: Some(end),
            end: vec![end],
            known,
        })
    }

    /// The `generation_config.json` that came with the tokenizer.
    pub fn generation(&self) -> Map<String, Value> {
        let beside = self
            .tokenizer
            .file()
            .map(|file| file.with_file_name("generation_config.json"));
        beside.and_then(|path| json(&path)).unwrap_or_default()
    }

    /// The model's configuration.
    pub fn model_config(&self) -> ModelConfig {
        self.config.model_config()
    }

    /// The model on `device`.
    ///
    /// # Errors
    /// When the checkpoint is damaged or of another model.
    pub fn load(&self, device: &Device) -> Result<Decoder<FeedForwardLayer>, ExportError> {
        Ok(load_model(
            &self.generation.dir,
            &self.model_config(),
            device,
        )?)
    }

    /// What the log says of the run up to the checkpoint; lines that cannot be read say nothing.
    pub fn figures(&self) -> Figures {
        let text = self
            .log
            .as_ref()
            .and_then(|log| fs::read_to_string(log).ok());
        let text = text.unwrap_or_default();
        let mut figures = Figures::default();
        for record in text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
        {
            match record {
                Record::Step(step) if step.step <= self.state.step => figures.last = Some(step),
                Record::Evaluation {
                    step, evaluation, ..
                } if step <= self.state.step => {
                    figures.evaluation = Some((step, evaluation));
                }
                _ => {}
            }
        }
        figures
    }
}

/// What a JSON file holds, where it is one of that kind.
fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// One id, or a list of them.
fn ids(value: &Value) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

/// The last figures of a log.
#[derive(Debug, Default)]
pub struct Figures {
    /// The last step's.
    pub last: Option<StepRecord>,
    /// The last evaluation's, and its step.
    pub evaluation: Option<(u64, Evaluation)>,
}

/// The checkpoint in a folder called `step-N`.
fn checkpoint(path: &Path) -> Result<Generation, ExportError> {
    // `checkpoints/step-3/..` and `.` have names too.
    let dir = fs::canonicalize(path).map_err(ExportError::io("find", path))?;
    let name = dir.file_name().and_then(|name| name.to_str());
    let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
    let step = step.ok_or_else(|| {
        let allowed = "a folder called step-N, as `train` writes it";
        hybridnorm_core::ConfigError::new("checkpoint", path.display(), allowed)
    })?;
    Ok(Generation { step, dir })
}
