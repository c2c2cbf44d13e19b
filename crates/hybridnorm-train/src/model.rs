//! A trained model from disk, with all that is needed to use it: a run directory, a checkpoint, or a Hugging Face folder.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_core::{ConfigError, Decoder};
use hybridnorm_interop::{InteropError, Pretrained};
use hybridnorm_moe::FeedForwardLayer;
use serde_json::{Map, Value};

use crate::checkpoint::{CheckpointStore, Generation, MANIFEST, TrainingState, load_model};
use crate::data::Tokenizer;
use crate::engine::{CHECKPOINTS, CONFIG, Stages, stored_config};
use crate::error::Error;
use crate::eval::Examinee;
use crate::generate::{ChatTemplate, Edges, Generator, Message};
use crate::hub;
use crate::run::RunConfig;

/// The configuration in a Hugging Face folder.
const HF_CONFIG: &str = "config.json";
/// What ends a generated text, beside what `config.json` says.
const HF_GENERATION: &str = "generation_config.json";

/// A trained model and its tokenizer.
#[derive(Debug)]
pub struct TrainedModel {
    /// The model, on the device it was opened for.
    pub decoder: Decoder<FeedForwardLayer>,
    /// The tokenizer it was trained with.
    pub tokenizer: Tokenizer,
    /// Tokens it was trained to see at once.
    pub context: usize,
    /// Whether it was trained to see its own document only.
    pub document_mask: bool,
    /// The ids before a text and after it.
    pub edges: Edges,
    /// What a user should know: checkpoints that were passed over.
    pub notes: Vec<String>,
    folder: PathBuf,
}

impl TrainedModel {
    /// Opens the model in `path` on `device`: a run directory, of which the newest whole checkpoint counts; one checkpoint, `step-N`; or a
    /// Hugging Face folder, or `hf:owner/name[@revision]` on the Hub. `tokenizer` takes the place of the one that belongs to the model: `byte` or a `tokenizer.json`.
    ///
    /// # Errors
    /// When there is no model, a file is damaged, or tokenizer and model do not belong together.
    pub fn open(path: &Path, tokenizer: Option<&str>, device: &Device) -> Result<Self, Error> {
        let path = &hub::resolve(path)?;
        let has = |name: &str| path.join(name).is_file();
        let model = if has(MANIFEST) {
            Self::of_checkpoint(path, tokenizer, device)?
        } else if has(CONFIG) {
            Self::of_run(path, tokenizer, device)?
        } else if has(HF_CONFIG) {
            Self::of_hugging_face(path, tokenizer, device)?
        } else {
            return Err(Error::NoModel {
                path: path.to_path_buf(),
            });
        };
        model.generator().check_vocabulary()?;
        Ok(model)
    }

    /// The newest whole checkpoint of the run in `path`.
    fn of_run(path: &Path, tokenizer: Option<&str>, device: &Device) -> Result<Self, Error> {
        let config = stored_config(path)?;
        let newest = CheckpointStore::new(path.join(CHECKPOINTS)).newest_whole()?;
        let Some((generation, state)) = newest.generation else {
            let path = path.to_path_buf();
            return Err(Error::NoCheckpoint { path });
        };
        let mut model = Self::of_generation(&generation, &state, &config, tokenizer, device)?;
        let skipped = newest.skipped.iter();
        model.notes = skipped
            .map(|(_, error)| format!("skipped: {error}"))
            .collect();
        Ok(model)
    }

    /// One checkpoint of a run, with the configuration it was written under.
    fn of_checkpoint(dir: &Path, tokenizer: Option<&str>, device: &Device) -> Result<Self, Error> {
        let name = dir.file_name().and_then(|name| name.to_str());
        let step = name.and_then(|name| name.strip_prefix("step-")?.parse().ok());
        let Some(step) = step else {
            let allowed = "a folder called step-N, as `train` writes it";
            return Err(ConfigError::new("model", dir.display(), allowed).into());
        };
        let dir = dir.to_path_buf();
        let generation = Generation { step, dir };
        let (state, config) = (generation.verify()?, stored_config(&generation.dir)?);
        Self::of_generation(&generation, &state, &config, tokenizer, device)
    }

    fn of_generation(
        generation: &Generation,
        state: &TrainingState,
        config: &RunConfig,
        tokenizer: Option<&str>,
        device: &Device,
    ) -> Result<Self, Error> {
        let tokenizer = Tokenizer::from_spec(tokenizer.unwrap_or(&config.data.tokenizer))?;
        let identity = tokenizer.identity();
        let of_data = state.data.as_ref();
        if of_data.is_some_and(|data| !data.contains(&identity)) {
            let field = "data.tokenizer";
            let allowed = "the tokenizer the run was trained with: this is another, or the file has changed since";
            return Err(ConfigError::new(field, tokenizer.name(), allowed).into());
        }
        let end = tokenizer.end_of_document()?;
        Ok(Self {
            decoder: load_model(&generation.dir, &config.model_config(), device)?,
            tokenizer,
            context: config.training.seq,
            document_mask: config.data.document_mask,
            edges: Edges::of_documents(end),
            notes: Vec::new(),
            folder: generation.dir.clone(),
        })
    }

    /// A folder as transformers writes it.
    fn of_hugging_face(
        path: &Path,
        tokenizer: Option<&str>,
        device: &Device,
    ) -> Result<Self, Error> {
        let pretrained = Pretrained::open(path)?;
        let decoder = pretrained.load(device)?;
        let tokenizer = match (tokenizer, pretrained.tokenizer()) {
            (Some(spec), _) => Tokenizer::from_spec(spec)?,
            (None, Some(own)) => Tokenizer::from_file(&own)?,
            (None, None) => {
                let allowed = "a tokenizer.json in the folder; it has none, so name one with --tokenizer FILE";
                return Err(ConfigError::new("tokenizer", path.display(), allowed).into());
            }
        };
        let config = Pretrained::config_of(path)?;
        let generation = match path.join(HF_GENERATION) {
            file if file.is_file() => json(&file)?,
            _ => Map::new(),
        };
        let edges = Edges::of_published(&tokenizer, &config, &generation)?;
        Ok(Self {
            decoder,
            context: pretrained.config().decoder.max_seq_len,
            document_mask: false,
            edges,
            tokenizer,
            notes: Vec::new(),
            folder: path.to_path_buf(),
        })
    }

    /// What the model continues texts with.
    pub fn generator(&self) -> Generator<'_, FeedForwardLayer> {
        Generator {
            model: &self.decoder,
            tokenizer: &self.tokenizer,
            window: self.context,
            ends: &self.edges.ends,
        }
    }

    /// What the model is examined with, `batch` sequences at once, on the `device` it was opened for.
    pub fn examinee<'a>(
        &'a self,
        batch: usize,
        stages: Stages,
        device: &'a Device,
    ) -> Examinee<'a, FeedForwardLayer> {
        Examinee {
            model: &self.decoder,
            tokenizer: &self.tokenizer,
            context: self.context,
            start: &self.edges.start,
            blank: &self.edges.blank,
            batch,
            stages,
            device,
        }
    }

    /// The ids of a text that is to be continued; without a text, what begins one.
    ///
    /// # Errors
    /// When the tokenizer refuses the text.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.edges.prompt(&self.tokenizer, text)?)
    }

    /// The template that the tokenizer's folder has for conversations.
    ///
    /// # Errors
    /// When it has none, or it cannot be read.
    pub fn chat_template(&self) -> Result<ChatTemplate, Error> {
        let file = self.tokenizer.file().and_then(Path::parent);
        Ok(ChatTemplate::of_folder(file.unwrap_or(&self.folder))?)
    }

    /// The ids of a conversation in the words of `template`.
    ///
    /// # Errors
    /// When the template or the tokenizer refuses it.
    pub fn conversation(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
    ) -> Result<Vec<u32>, Error> {
        let text = template.render(messages)?;
        Ok(self.tokenizer.encode_with_special(&text)?)
    }
}

/// A JSON object in a file.
fn json(path: &Path) -> Result<Map<String, Value>, InteropError> {
    let text = fs::read_to_string(path).map_err(|source| InteropError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|error| InteropError::Format {
        path: path.to_path_buf(),
        expected: "JSON",
        reason: error.to_string(),
    })
}
