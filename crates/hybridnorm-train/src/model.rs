//! A trained model from disk, with all that is needed to use it: a run directory, a checkpoint, or a Hugging Face folder.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_core::{ConfigError, Decoder};
use hybridnorm_interop::Pretrained;
use hybridnorm_moe::FeedForwardLayer;

use crate::data::Tokenizer;
use crate::engine::Stages;
use crate::error::Error;
use crate::eval::Examinee;
use crate::generate::{ChatTemplate, Edges, Generator, Message};
use crate::hub;
use crate::stored::{Published, Stored};

/// The configuration in a Hugging Face folder, and in one of the authors' code.
const FOLDERS: [&str; 2] = ["config.json", "config.yaml"];

/// Whether `path` is a published model's folder, to judge by its configuration.
fn is_published(path: &Path) -> bool {
    FOLDERS.iter().any(|file| path.join(file).is_file())
}

/// Refuses a run where a published model is expected, and says what it is good for.
///
/// # Errors
/// When it is one.
pub(crate) fn refuse_run(path: &Path) -> Result<(), Error> {
    match Stored::is_at(path) && !is_published(path) {
        true => Err(Error::AlreadyARun {
            path: path.to_path_buf(),
        }),
        false => Ok(()),
    }
}

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
        let model = if Stored::is_at(path) {
            Self::of_run(Stored::open(path, tokenizer)?, device)?
        } else if is_published(path) {
            Self::of_hugging_face(path, tokenizer, device)?
        } else {
            return Err(Error::NoModel {
                path: path.to_path_buf(),
            });
        };
        model.generator().check_vocabulary()?;
        Ok(model)
    }

    fn of_run(stored: Stored, device: &Device) -> Result<Self, Error> {
        Ok(Self {
            decoder: stored.load(device)?,
            edges: stored.edges()?,
            context: stored.config.training.seq,
            document_mask: stored.config.data.document_mask,
            notes: stored.notes,
            folder: stored.generation.dir,
            tokenizer: stored.tokenizer,
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
        let published = Published {
            folder: path.display().to_string(),
            model_type: pretrained.architecture().model_type.to_string(),
            config: Pretrained::describe(path)?.0,
            generation: Published::generation_of(path)?,
        };
        let edges = published.edges(&tokenizer)?;
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
