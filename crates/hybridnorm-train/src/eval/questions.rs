//! Multiple-choice questions from files.
//!
//! Two formats are read, told apart by the first line. This program's own has a question on each line: `prompt`, `choices` (texts), `gold`
//! (the index of the right one, from 0), and where wanted `id`, and `unconditional`, the text whose continuation the answers are held
//! against. The other is that of `requests`, one line for each answer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::Value;

use super::requests::Requests;
use crate::data::{DataError, TextLines, TokenizerError};
use crate::error::BadLine;

/// No line is longer: a few questions of the longest published contexts.
const MAX_LINE_BYTES: usize = 16 << 20;
/// Between examples, and between the last one and the question.
const BETWEEN_SHOTS: &str = "\n\n";

/// Why questions cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum QuestionsError {
    /// The file cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A line is not what it should be.
    #[error(transparent)]
    Line(#[from] BadLine),
}

/// A file of questions.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What it is called: the file's name without its endings; of `requests.jsonl.gz` the two folders it lies in.
    pub name: String,
    /// The questions, in the order of the file.
    pub questions: Vec<Question>,
    /// Whether what stands before each answer is complete, examples included.
    pub is_complete: bool,
}

/// A question with its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// What the file calls it, or its number from 0.
    pub id: String,
    /// The answers: at least one.
    pub choices: Vec<Choice>,
    /// The right one.
    pub gold: usize,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// What stands before it; mostly the same for all answers of a question.
    pub context: String,
    /// The answer as it is appended.
    pub text: String,
    /// What stands before it where its likelihood without the question is measured; empty for nothing.
    pub unconditional: String,
}

impl Task {
    /// Reads the questions in the file `path`, `.gz` or `.zst` among its endings or none.
    ///
    /// # Errors
    /// When the file cannot be read, or a line is not a question: the line is named, and what is allowed.
    pub fn read(path: &Path) -> Result<Self, QuestionsError> {
        let bad = |line: usize, reason: String| BadLine {
            path: path.to_path_buf(),
            line,
            reason,
        };
        let (mut questions, mut requests) = (Vec::new(), None::<Requests>);
        let mut last = 1;
        for line in TextLines::open(path, MAX_LINE_BYTES)? {
            let (number, line) = line?;
            last = number;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let value: Value = serde_json::from_slice(&line)
                .map_err(|error| bad(number, format!("no JSON: {error}")))?;
            if questions.is_empty() && requests.is_none() && value.get("request").is_some() {
                requests = Some(Requests::default());
            }
            match &mut requests {
                Some(requests) => requests.add(value).map_err(|reason| bad(number, reason))?,
                None => {
                    let question = own(value, questions.len());
                    questions.push(question.map_err(|reason| bad(number, reason))?);
                }
            }
        }
        let is_complete = requests.is_some();
        if let Some(requests) = requests {
            questions = requests.finish().map_err(|reason| bad(last, reason))?;
        }
        if questions.is_empty() {
            let reason = "there is no question: expected one on each line, as an object with `prompt`, `choices` and `gold`";
            return Err(bad(last, reason.to_string()).into());
        }
        Ok(Self {
            name: name(path),
            questions,
            is_complete,
        })
    }

    /// Only `most` of the questions, drawn by `seed`, in their order.
    pub fn sample(&mut self, most: usize, seed: u64) {
        if most < self.questions.len() {
            let drawn = draw(
                &mut ChaCha8Rng::seed_from_u64(seed),
                self.questions.len(),
                most,
            );
            let drawn: BTreeSet<usize> = drawn.into_iter().collect();
            let mut index = 0;
            self.questions.retain(|_| {
                index += 1;
                drawn.contains(&(index - 1))
            });
        }
    }

    /// Puts `shots` of `examples`, with their right answers, before each question; each question's are drawn by `seed` and its place,
    /// and it is never among them.
    ///
    /// # Errors
    /// When there are not as many examples.
    pub fn with_shots(
        &mut self,
        examples: &Task,
        shots: usize,
        seed: u64,
    ) -> Result<(), hybridnorm_core::ConfigError> {
        let texts: Vec<(&str, String)> = examples
            .questions
            .iter()
            .map(|example| {
                let gold = &example.choices[example.gold];
                (&gold.context[..], format!("{}{}", gold.context, gold.text))
            })
            .collect();
        for (index, question) in self.questions.iter_mut().enumerate() {
            let asked = question.choices[question.gold].context.clone();
            let others: Vec<&String> = texts
                .iter()
                .filter(|(context, _)| *context != asked)
                .map(|(_, text)| text)
                .collect();
            if others.len() < shots {
                let allowed = format!("at most {}, the other examples in the file", others.len());
                return Err(hybridnorm_core::ConfigError::new("shots", shots, allowed));
            }
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(index as u64);
            let drawn = draw(&mut rng, others.len(), shots);
            let before: String = drawn
                .into_iter()
                .map(|example| format!("{}{BETWEEN_SHOTS}", others[example]))
                .collect();
            for choice in &mut question.choices {
                choice.context.insert_str(0, &before);
            }
        }
        Ok(())
    }
}

/// `count` different numbers below `n`, in the order they were drawn.
fn draw(rng: &mut ChaCha8Rng, n: usize, count: usize) -> Vec<usize> {
    let mut numbers: Vec<usize> = (0..n).collect();
    for place in 0..count {
        let left = (n - place) as u128;
        let drawn = place + ((u128::from(rng.next_u64()) * left) >> 64) as usize;
        numbers.swap(place, drawn);
    }
    numbers.truncate(count);
    numbers
}

/// What a file of questions is called.
fn name(path: &Path) -> String {
    let file = |path: &Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.split('.').next().unwrap_or_default().to_string()
    };
    let own = file(path);
    if own != "requests" {
        return own;
    }
    let full = path.canonicalize().unwrap_or_else(|_| PathBuf::from(path));
    let folders: Vec<String> = full.ancestors().skip(1).take(2).map(file).collect();
    let folders = folders.into_iter().rev().filter(|name| !name.is_empty());
    folders.collect::<Vec<_>>().join("_")
}

/// A line of this program's own format.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    id: Option<Value>,
    prompt: String,
    choices: Vec<String>,
    gold: usize,
    unconditional: Option<String>,
}

fn own(value: Value, number: usize) -> Result<Question, String> {
    let own: Own = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let count = own.choices.len();
    if count == 0 {
        return Err("`choices` is empty: expected at least one text".to_string());
    }
    if own.gold >= count {
        let gold = own.gold;
        return Err(format!(
            "gold is {gold}: expected the index of a choice, from 0 to {}",
            count - 1
        ));
    }
    let choices = own.choices.into_iter().map(|choice| {
        if choice.is_empty() {
            return Err("a choice is empty: expected some text".to_string());
        }
        // A word apart, unless the file says how.
        let apart = own.prompt.ends_with(char::is_whitespace) || own.prompt.is_empty();
        let text = match apart || choice.starts_with(char::is_whitespace) {
            true => choice,
            false => format!(" {choice}"),
        };
        Ok(Choice {
            context: own.prompt.clone(),
            text,
            unconditional: own.unconditional.clone().unwrap_or_default(),
        })
    });
    Ok(Question {
        choices: choices.collect::<Result<_, String>>()?,
        gold: own.gold,
        id: match own.id {
            Some(Value::String(id)) => id,
            Some(id) => id.to_string(),
            None => number.to_string(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(name: &str, text: impl AsRef<[u8]>) -> Result<Task, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("arc").join("rc_5shot").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        Task::read(&path).map_err(|error| error.to_string())
    }

    fn texts(question: &Question) -> Vec<&str> {
        question
            .choices
            .iter()
            .map(|choice| &choice.text[..])
            .collect()
    }

    #[test]
    fn an_answer_is_a_word_apart() {
        let lines = "{\"prompt\": \"1+1 =\", \"choices\": [\"2\", \" 3\"], \"gold\": 0}\n\n\
                     {\"id\": 7, \"prompt\": \"1+1 = \", \"choices\": [\"2\"], \"gold\": 0, \"unconditional\": \"=\"}\n";
        let task = read("sums.v1.jsonl", lines).unwrap();
        assert_eq!((&task.name[..], task.is_complete), ("sums", false));
        let [first, second] = &task.questions[..] else {
            panic!("{task:?}");
        };
        assert_eq!((&first.id[..], texts(first)), ("0", vec![" 2", " 3"]));
        assert_eq!((&second.id[..], texts(second)), ("7", vec!["2"]));
        assert_eq!(second.choices[0].unconditional, "=");
    }

    #[test]
    fn what_is_no_question_is_named_by_its_line() {
        let good = "{\"prompt\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1}";
        for (line, words) in [
            ("nothing", "no JSON"),
            (
                "{\"prompt\": \"a\", \"choices\": [\"b\"], \"gold\": 1}",
                "from 0 to 0",
            ),
            (
                "{\"prompt\": \"a\", \"choices\": [\"b\"], \"gold\": -1}",
                "-1",
            ),
            ("{\"prompt\": \"a\", \"choices\": [], \"gold\": 0}", "empty"),
            (
                "{\"prompt\": \"a\", \"choices\": [\"\"], \"gold\": 0}",
                "empty",
            ),
            ("{\"prompt\": \"a\", \"choices\": [\"b\"]}", "gold"),
            (
                "{\"prompt\": \"a\", \"choices\": [\"b\"], \"gold\": 0, \"golt\": 0}",
                "golt",
            ),
            ("{\"request\": {}}", "prompt"),
        ] {
            let message = read("a.jsonl", format!("{good}\n\n{line}\n")).unwrap_err();
            assert!(
                message.contains("a.jsonl:3: ") && message.contains(words),
                "{message}"
            );
        }
        let message = read("a.jsonl", "\n\n").unwrap_err();
        assert!(message.contains("no question"), "{message}");
        let message = read("a.jsonl.gz", good).unwrap_err();
        assert!(message.contains("a.jsonl.gz"), "{message}");
    }

    #[test]
    fn a_sample_is_a_part_that_a_seed_decides() {
        let line =
            |n: usize| format!("{{\"prompt\": \"{n}\", \"choices\": [\"a\"], \"gold\": 0}}\n");
        let all = read("a.jsonl", (0..50).map(line).collect::<String>()).unwrap();
        let ids = |most, seed| {
            let mut task = all.clone();
            task.sample(most, seed);
            let ids = task
                .questions
                .iter()
                .map(|question| question.id.parse().unwrap());
            ids.collect::<Vec<usize>>()
        };
        assert_eq!(ids(10, 1), ids(10, 1));
        assert_ne!(ids(10, 1), ids(10, 2));
        assert_eq!((ids(10, 1).len(), ids(10, 1).is_sorted()), (10, true));
        assert_eq!(ids(60, 1).len(), 50);
    }

    #[test]
    fn examples_come_before_a_question_and_it_is_none_of_them() {
        let line = |n: usize| {
            format!("{{\"prompt\": \"{n}+0 =\", \"choices\": [\"x\", \"{n}\"], \"gold\": 1}}\n")
        };
        let examples = read("a.jsonl", (0..6).map(line).collect::<String>()).unwrap();
        let mut task = examples.clone();
        task.with_shots(&examples, 5, 3).unwrap();
        for (n, question) in task.questions.iter().enumerate() {
            let context = &question.choices[0].context;
            assert!(context.ends_with(&format!("\n\n{n}+0 =")), "{context}");
            for other in 0..6 {
                let shown = context.matches(&format!("{other}+0 = {other}\n\n")).count();
                assert_eq!(shown, usize::from(other != n), "{context}");
            }
        }
        let mut again = examples.clone();
        again.with_shots(&examples, 5, 3).unwrap();
        assert_eq!(again, task);
        let error = examples
            .clone()
            .with_shots(&examples, 6, 3)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("shots") && error.contains("at most 5"),
            "{error}"
        );
    }
}
