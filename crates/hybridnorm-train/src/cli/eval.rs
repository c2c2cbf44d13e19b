//! `eval`: how good a trained model is, on texts and on multiple-choice questions.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use hybridnorm_core::ConfigError;
use hybridnorm_moe::FeedForwardLayer;
use serde::Serialize;

use super::eval_table::table;
use super::eval_texts::documents;
use crate::device::DeviceSpec;
use crate::engine::Stages;
use crate::error::Error;
use crate::eval::Examinee;
use crate::eval::choices::{Answered, TaskScore};
use crate::eval::questions::Task;
use crate::eval::texts::TextScore;
use crate::model::TrainedModel;

/// The flags of `eval`.
#[derive(Debug, Clone, Args)]
pub struct EvalFlags {
    /// The model: a run directory, whose newest whole checkpoint is used; one checkpoint; a Hugging Face folder; or `hf:owner/name[@revision]`
    #[arg(long, value_name = "DIR", visible_alias = "run")]
    model: PathBuf,
    /// Text whose perplexity is measured, document by document: a file, folder or pattern of `.txt`, `.md`, `.jsonl` or `.parquet`, or the held-out side of a prepared folder; may be given several times
    #[arg(long, value_name = "PATH")]
    text: Vec<PathBuf>,
    /// Multiple-choice questions: `.jsonl` with `prompt`, `choices` and `gold`, or OLMo's `requests.jsonl.gz`; may be given several times
    #[arg(long, value_name = "FILE")]
    task: Vec<PathBuf>,
    /// Tokens that a window moves on over a text: fewer give each token more before it, and take longer [default: half the context]
    #[arg(long, value_name = "N", requires = "text")]
    stride: Option<usize>,
    /// Questions of each task at most, drawn by --seed
    #[arg(long, value_name = "N", requires = "task")]
    questions: Option<usize>,
    /// Examples put before each question, drawn by --seed
    #[arg(long, value_name = "K", requires = "shots_from")]
    shots: Option<usize>,
    /// Where they are from: questions in the format of --task
    #[arg(long, value_name = "FILE", requires = "shots", requires = "task")]
    shots_from: Option<PathBuf>,
    /// Seed of what is drawn
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Sequences computed at once
    #[arg(long, value_name = "N", default_value_t = 8)]
    batch: usize,
    /// Write each question's log-likelihoods to this file, a line of JSON for each
    #[arg(long, value_name = "FILE", requires = "task")]
    answers: Option<PathBuf>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Another tokenizer than the model's own: `byte` or a tokenizer.json
    #[arg(long, value_name = "FILE|byte")]
    tokenizer: Option<String>,
    /// Where to compute [default: the best compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceSpec>,
}

/// All that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    model: String,
    device: String,
    /// Tokens that the model saw at once.
    context: usize,
    pub texts: Vec<NamedText>,
    pub tasks: Vec<TaskScore>,
}

/// A text and its score.
#[derive(Debug, Serialize)]
pub(super) struct NamedText {
    pub text: String,
    #[serde(flatten)]
    pub score: TextScore,
}

pub(super) fn run(flags: &EvalFlags, out: &mut impl Write) -> Result<(), Error> {
    let tasks = flags.tasks()?;
    let spec = flags.device.clone().map_or_else(DeviceSpec::best, Ok)?;
    let device = spec.open()?;
    let model = TrainedModel::open(&flags.model, flags.tokenizer.as_deref(), &device)?;
    for note in &model.notes {
        // Where standard error is gone, the results are all there is to give.
        let _ = writeln!(io::stderr(), "warning: {note}");
    }
    let stride = flags.stride.unwrap_or(model.context.div_ceil(2));
    if !(1..=model.context).contains(&stride) {
        let allowed = format!("from 1 to {}, the model's context", model.context);
        return Err(ConfigError::new("stride", stride, allowed).into());
    }
    let examinee = model.examinee(flags.batch, Stages::default(), &device);
    let mut answers = flags
        .answers
        .as_ref()
        .map(AnswersFile::create)
        .transpose()?;
    let mut results = Results {
        model: flags.model.display().to_string(),
        device: spec.to_string(),
        context: model.context,
        texts: Vec::new(),
        tasks: Vec::new(),
    };
    for path in &flags.text {
        results.texts.push(flags.read(path, stride, &examinee)?);
    }
    for task in &tasks {
        let (score, answered) = examinee.answer(task, flags.shots.unwrap_or(0))?;
        if let Some(file) = &mut answers {
            file.write(&answered)?;
        }
        if score.truncated > 0 {
            let (truncated, name) = (score.truncated, &score.task);
            let _ = writeln!(
                io::stderr(),
                "warning: {name}: {truncated} questions are longer than the model's context of {} tokens, and lost their beginnings",
                model.context
            );
        }
        results.tasks.push(score);
    }
    if let Some(file) = answers {
        file.finish()?;
    }
    let text = match flags.json {
        true => {
            serde_json::to_string(&results).map_err(|error| Error::Output(error.into()))? + "\n"
        }
        false => table(&results),
    };
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

impl EvalFlags {
    /// The questions, examples before them where asked for.
    fn tasks(&self) -> Result<Vec<Task>, Error> {
        if self.text.is_empty() && self.task.is_empty() {
            let usage = "nothing to measure: give --text PATH for perplexity, --task FILE for multiple-choice questions, or both";
            return Err(Error::Usage(usage.to_string()));
        }
        for (field, value) in [("batch", Some(self.batch)), ("questions", self.questions)] {
            if value == Some(0) {
                return Err(ConfigError::new(field, 0, "at least 1").into());
            }
        }
        let examples = self.shots_from.as_deref().map(Task::read).transpose()?;
        let tasks = self.task.iter().map(|path| {
            let mut task = Task::read(path)?;
            if let Some(most) = self.questions {
                task.sample(most, self.seed);
            }
            if let (Some(examples), Some(shots)) = (&examples, self.shots) {
                if task.is_complete {
                    let allowed = "left out for a file of requests, whose questions have their examples before them already";
                    return Err(ConfigError::new("shots", shots, allowed).into());
                }
                task.with_shots(examples, shots, self.seed)?;
            }
            Ok(task)
        });
        tasks.collect()
    }

    fn read(
        &self,
        path: &Path,
        stride: usize,
        examinee: &Examinee<'_, FeedForwardLayer>,
    ) -> Result<NamedText, Error> {
        let score = examinee.read(documents(path)?, stride)?;
        let Some(score) = score else {
            let allowed =
                "text, or a folder that `prepare` has finished: there is not one token in it";
            return Err(ConfigError::new("text", path.display(), allowed).into());
        };
        let text = path.display().to_string();
        Ok(NamedText { text, score })
    }
}

/// Where each question's log-likelihoods go.
struct AnswersFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl AnswersFile {
    fn create(path: &PathBuf) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        Ok(Self {
            path: path.clone(),
            file: BufWriter::new(file),
        })
    }

    fn write(&mut self, answers: &[Answered]) -> Result<(), Error> {
        for answer in answers {
            let line = serde_json::to_string(answer).map_err(io::Error::from);
            let written = line.and_then(|line| writeln!(self.file, "{line}"));
            written.map_err(Error::io("write", &self.path))?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(), Error> {
        self.file.flush().map_err(Error::io("write", &self.path))
    }
}
