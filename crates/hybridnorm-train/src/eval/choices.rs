//! Multiple choice by log-likelihood: the answer that the model finds likeliest is its answer.

use std::collections::HashMap;

use hybridnorm_core::FeedForward;
use serde::Serialize;

use super::bootstrap::of_mean;
use super::costs::costs_behind;
use super::questions::{Choice, Task};
use super::{Examinee, ScoreError};

/// A mean over questions or documents.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// The mean.
    pub value: f64,
    /// How far it would scatter over samples of as many, by bootstrap; absent of one alone.
    pub standard_error: Option<f64>,
}

impl Figure {
    /// The mean of `values`.
    pub(super) fn of(values: &[f64]) -> Self {
        Self {
            value: values.iter().sum::<f64>() / values.len() as f64,
            standard_error: of_mean(values),
        }
    }
}

/// How well a task was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskScore {
    /// The task.
    pub task: String,
    /// Questions asked.
    pub questions: usize,
    /// Examples before each question that this program put there.
    pub shots: usize,
    /// Questions whose beginning did not fit the model's context and was left out.
    pub truncated: usize,
    /// What guessing gets right; absent where no question has two answers.
    pub chance: Option<f64>,
    /// Share of questions answered right, by each way to compare answers; absent likewise.
    pub accuracy: Option<Accuracy>,
    /// Bits per byte of the right answer, given the question; the mean over questions.
    pub gold_bits_per_byte: Figure,
}

/// Shares of questions whose right answer is likeliest, by what likelihoods are divided by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// By nothing.
    pub raw: Figure,
    /// By its tokens.
    pub per_token: Figure,
    /// By its characters (OLMES).
    pub per_character: Figure,
    /// By its UTF-8 bytes.
    pub per_byte: Figure,
    /// By its likelihood without the question.
    pub unconditional: Figure,
}

/// A question as the model answered it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answered {
    /// The task.
    pub task: String,
    /// The question.
    pub id: String,
    /// The right answer.
    pub gold: usize,
    /// All answers.
    pub choices: Vec<Weighed>,
}

/// An answer as the model saw it. Its length is that of the text as it is appended, a space before it included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Weighed {
    /// ln p of the answer, given what stands before it.
    pub log_likelihood: f64,
    /// The same without the question.
    pub unconditional: f64,
    /// Tokens that it was summed over.
    pub tokens: usize,
    /// Characters of the text.
    pub characters: usize,
    /// UTF-8 bytes of the text.
    pub bytes: usize,
}

impl Answered {
    /// Whether the right answer is the largest by `figure`, the first of equals.
    fn is_right(&self, figure: impl Fn(&Weighed) -> f64) -> bool {
        let mut best = 0;
        for (index, choice) in self.choices.iter().enumerate() {
            if figure(choice) > figure(&self.choices[best]) {
                best = index;
            }
        }
        best == self.gold
    }
}

/// The rows to compute, each once.
#[derive(Default)]
struct Rows {
    rows: Vec<Vec<u32>>,
    known: HashMap<(Vec<u32>, usize), usize>,
    /// Of each row the tokens, its last, that count.
    counted: Vec<usize>,
}

impl Rows {
    fn add(&mut self, row: Vec<u32>, counted: usize) -> usize {
        let next = self.rows.len();
        *self
            .known
            .entry((row, counted))
            .or_insert_with_key(|(row, _)| {
                self.rows.push(row.clone());
                self.counted.push(counted);
                next
            })
    }
}

/// Rows that begin alike, and what it saves to compute that beginning once.
struct Alike {
    rows: Vec<usize>,
    /// Tokens that are the same in all, and of which none counts.
    shared: usize,
}

impl Rows {
    /// Those of `question` that have the beginning of the first of them, where that makes up most of what would be computed.
    fn alike(&self, question: std::ops::Range<usize>) -> Option<Alike> {
        let first = &self.rows[question.clone().next()?];
        let common = |row: usize| {
            let own = &self.rows[row];
            let same = first.iter().zip(own).take_while(|(a, b)| a == b).count();
            same.min(own.len() - self.counted[row])
        };
        let longest = question.clone().map(common).max()?;
        // A row that is cut, or one without the question, begins otherwise.
        let rows: Vec<usize> = question.filter(|row| 2 * common(*row) > longest).collect();
        let shared = rows.iter().map(|row| common(*row)).min()?;
        let all: usize = rows.iter().map(|row| self.rows[*row].len()).sum();
        let saved = (rows.len() - 1) * shared;
        (rows.len() > 1 && 2 * saved > all).then_some(Alike { rows, shared })
    }
}

impl<F: FeedForward> Examinee<'_, F> {
    /// What the tokens that count cost, of each row. `questions` are rows that may begin alike: such a beginning is computed once.
    fn costs_of(
        &self,
        rows: &Rows,
        questions: Vec<std::ops::Range<usize>>,
    ) -> Result<Vec<Vec<f32>>, ScoreError> {
        let mut costs = vec![Vec::new(); rows.rows.len()];
        for Alike {
            rows: alike,
            shared,
        } in questions.into_iter().filter_map(|q| rows.alike(q))
        {
            let beginning = &rows.rows[alike[0]][..shared];
            for alike in alike.chunks(self.batch.max(1)) {
                let endings: Vec<&[u32]> =
                    alike.iter().map(|row| &rows.rows[*row][shared..]).collect();
                let found =
                    costs_behind(self.model, beginning, &endings, self.stages, self.device)?;
                for (row, found) in alike.iter().zip(found) {
                    costs[*row] = found;
                }
            }
        }
        let others = costs.iter().enumerate();
        let others: Vec<usize> = others
            .filter_map(|(row, costs)| costs.is_empty().then_some(row))
            .collect();
        let tokens: Vec<Vec<u32>> = others.iter().map(|row| rows.rows[*row].clone()).collect();
        for (row, found) in others.into_iter().zip(self.costs(&tokens)?) {
            costs[row] = found;
        }
        for (costs, counted) in costs.iter_mut().zip(&rows.counted) {
            costs.drain(..costs.len() - counted);
        }
        Ok(costs)
    }

    /// Answers every question of `task`. `shots` is only reported.
    ///
    /// # Errors
    /// When the tokenizer refuses a text, an answer is longer than the model's context, or the device fails.
    pub fn answer(
        &self,
        task: &Task,
        shots: usize,
    ) -> Result<(TaskScore, Vec<Answered>), ScoreError> {
        let (mut rows, mut truncated) = (Rows::default(), 0);
        let mut places = Vec::new();
        let mut questions = Vec::new();
        for question in &task.questions {
            let mut cut = false;
            let first = rows.rows.len();
            for choice in &question.choices {
                let mut row = |context: &str| {
                    let (mut ids, tokens) = self.encode(context, choice)?;
                    let room = self.context + 1;
                    if tokens > self.context {
                        return Err(ScoreError::TooLong {
                            task: task.name.clone(),
                            question: question.id.clone(),
                            tokens,
                            context: self.context,
                        });
                    }
                    if ids.len() > room {
                        cut = true;
                        ids.drain(..ids.len() - room);
                    }
                    Ok((rows.add(ids, tokens), tokens))
                };
                places.push((row(&choice.context)?, row(&choice.unconditional)?));
            }
            truncated += usize::from(cut);
            questions.push(first..rows.rows.len());
        }
        let costs = self.costs_of(&rows, questions)?;
        let likelihood = |row: usize| -costs[row].iter().map(|cost| f64::from(*cost)).sum::<f64>();
        let mut places = places.into_iter();
        let answers: Vec<Answered> = task
            .questions
            .iter()
            .map(|question| {
                let own = question.choices.iter().zip(places.by_ref());
                let choices = own.map(|(choice, ((row, tokens), (without, _)))| Weighed {
                    log_likelihood: likelihood(row),
                    unconditional: likelihood(without),
                    tokens,
                    characters: choice.text.chars().count(),
                    bytes: choice.text.len(),
                });
                Answered {
                    task: task.name.clone(),
                    id: question.id.clone(),
                    gold: question.gold,
                    choices: choices.collect(),
                }
            })
            .collect();
        let score = TaskScore {
            task: task.name.clone(),
            questions: answers.len(),
            shots,
            truncated,
            chance: chance(&answers),
            accuracy: chance(&answers).map(|_| accuracy(&answers)),
            gold_bits_per_byte: gold_bits(&answers),
        };
        Ok((score, answers))
    }

    /// The ids of an answer behind `context`, and how many of them, the last ones, are the answer's. Both are encoded as one text, the
    /// space between them the answer's; where that merges characters across the border, each by itself.
    fn encode(&self, context: &str, choice: &Choice) -> Result<(Vec<u32>, usize), ScoreError> {
        let kept = context.trim_end();
        let text = format!("{}{}", &context[kept.len()..], choice.text);
        let before = self.tokenizer.encode(kept)?;
        let whole = self.tokenizer.encode(&format!("{kept}{text}"))?;
        let mut ids = match before.is_empty() {
            true => self.blank.to_vec(),
            false => self.start.to_vec(),
        };
        let answer = match whole.strip_prefix(&before[..]) {
            Some(answer) if !answer.is_empty() => answer.to_vec(),
            _ => self.tokenizer.encode(&text)?,
        };
        ids.extend(before);
        ids.extend(&answer);
        Ok((ids, answer.len()))
    }
}

/// What guessing gets right; `None` where no question has two answers.
fn chance(answers: &[Answered]) -> Option<f64> {
    let shares = answers
        .iter()
        .map(|answered| 1.0 / answered.choices.len() as f64);
    let chance = shares.sum::<f64>() / answers.len() as f64;
    answers
        .iter()
        .any(|answered| answered.choices.len() > 1)
        .then_some(chance)
}

fn accuracy(answers: &[Answered]) -> Accuracy {
    let share = |figure: fn(&Weighed) -> f64| {
        let right = answers
            .iter()
            .map(|answered| f64::from(answered.is_right(figure)));
        Figure::of(&right.collect::<Vec<_>>())
    };
    Accuracy {
        raw: share(|choice| choice.log_likelihood),
        per_token: share(|choice| choice.log_likelihood / choice.tokens as f64),
        per_character: share(|choice| choice.log_likelihood / choice.characters as f64),
        per_byte: share(|choice| choice.log_likelihood / choice.bytes as f64),
        unconditional: share(|choice| choice.log_likelihood - choice.unconditional),
    }
}

fn gold_bits(answers: &[Answered]) -> Figure {
    let bits = answers.iter().map(|answered| {
        let gold = &answered.choices[answered.gold];
        -gold.log_likelihood / core::f64::consts::LN_2 / gold.bytes as f64
    });
    Figure::of(&bits.collect::<Vec<_>>())
}
