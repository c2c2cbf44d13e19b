//! Questions that a model is asked between steps, by the code of `eval`.

use serde::{Deserialize, Serialize};

use super::model::LanguageModel;
use super::stages::Stages;
use crate::amount::Amount;
use crate::data::Tokenizer;
use crate::eval::choices::TaskScore;
use crate::eval::questions::{QuestionsError, Task};
use crate::eval::{Examinee, ScoreError};
use crate::generate::Edges;
use crate::run::RunConfig;
use crate::stored::{Published, edges};

/// How well a task was done after a step: see `docs/evaluation.md`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task.
    pub task: String,
    /// Questions asked.
    pub questions: usize,
    /// Share answered right by likelihood; absent where no question has two answers, as are the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Its standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_error: Option<f64>,
    /// By likelihood per token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_per_token: Option<f64>,
    /// By likelihood per character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_per_character: Option<f64>,
    /// By likelihood per UTF-8 byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_per_byte: Option<f64>,
    /// By likelihood over that without the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_unconditional: Option<f64>,
    /// What guessing gets right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chance: Option<f64>,
    /// Bits per byte of the right answer, the mean over questions.
    pub gold_bits_per_byte: f64,
}

impl From<TaskScore> for TaskRecord {
    fn from(score: TaskScore) -> Self {
        let accuracy = score.accuracy;
        Self {
            task: score.task,
            questions: score.questions,
            accuracy: accuracy.map(|by| by.raw.value),
            accuracy_error: accuracy.and_then(|by| by.raw.standard_error),
            accuracy_per_token: accuracy.map(|by| by.per_token.value),
            accuracy_per_character: accuracy.map(|by| by.per_character.value),
            accuracy_per_byte: accuracy.map(|by| by.per_byte.value),
            accuracy_unconditional: accuracy.map(|by| by.unconditional.value),
            chance: score.chance,
            gold_bits_per_byte: score.gold_bits_per_byte.value,
        }
    }
}

/// The questions of a run, and what they are asked with.
pub(super) struct Exam {
    /// Between two askings.
    pub every: Amount,
    tasks: Vec<Task>,
    tokenizer: Tokenizer,
    edges: Edges,
    context: usize,
    batch: usize,
    stages: Stages,
}

impl Exam {
    /// Reads the tasks that `config` names, for a run that was perhaps imported; `None` where there are none.
    pub(super) fn of(
        config: &RunConfig,
        published: Option<&Published>,
    ) -> Result<Option<Self>, QuestionsError> {
        let wanted = &config.evaluation;
        if wanted.tasks.is_empty() {
            return Ok(None);
        }
        let tasks = wanted.tasks.iter().map(|path| {
            let mut task = Task::read(path)?;
            if let Some(most) = wanted.questions {
                task.sample(most, config.training.seed);
            }
            Ok(task)
        });
        let tokenizer = Tokenizer::from_spec(&config.data.tokenizer)?;
        Ok(Some(Self {
            every: wanted.every,
            tasks: tasks.collect::<Result<_, QuestionsError>>()?,
            edges: edges(&tokenizer, published)?,
            tokenizer,
            context: config.training.seq,
            batch: config.training.micro_batch,
            stages: config.training.stages(),
        }))
    }

    /// What the tasks are called.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().map(|task| task.name.as_str())
    }

    /// Asks `model`, which has no autodiff.
    pub(super) fn ask(&self, model: &LanguageModel) -> Result<Vec<TaskRecord>, ScoreError> {
        let device = model.decoder.embedding.weight.val().device();
        let examinee = Examinee {
            model: &model.decoder,
            tokenizer: &self.tokenizer,
            context: self.context,
            start: &self.edges.start,
            blank: &self.edges.blank,
            batch: self.batch,
            stages: self.stages,
            device: &device,
        };
        let scores = self.tasks.iter().map(|task| examinee.answer(task, 0));
        scores.map(|score| Ok(score?.0.into())).collect()
    }
}
