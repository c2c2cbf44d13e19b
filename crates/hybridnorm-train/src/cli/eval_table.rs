//! The results of `eval` for people.

use std::fmt::Write as _;

use super::eval::Results;
use crate::eval::choices::{Figure, TaskScore};
use crate::sizes::thousands;

/// Tables of texts and of tasks.
pub(super) fn table(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    if !results.texts.is_empty() {
        let _ = writeln!(
            out,
            "{:<32} {:>10} {:>12} {:>17} {:>12} {:>17}",
            "text", "documents", "tokens", "nats/token", "perplexity", "bits/byte"
        );
    }
    for text in &results.texts {
        let score = &text.score;
        let _ = writeln!(
            out,
            "{:<32} {:>10} {:>12} {:>17} {:>12.3} {:>17}",
            text.text,
            thousands(score.documents as u64),
            thousands(score.tokens),
            figure(&score.nats_per_token, 4),
            score.perplexity,
            figure(&score.bits_per_byte, 4),
        );
    }
    if !results.texts.is_empty() && !results.tasks.is_empty() {
        out.push('\n');
    }
    if !results.tasks.is_empty() {
        let _ = writeln!(
            out,
            "{:<32} {:>9} {:>7} {:>14} {:>14} {:>14} {:>14} {:>14} {:>17}",
            "task, share right",
            "questions",
            "chance",
            "raw",
            "per token",
            "per character",
            "per byte",
            "unconditional",
            "gold bits/byte"
        );
    }
    for task in &results.tasks {
        let _ = writeln!(out, "{}", row(task));
    }
    out
}

fn row(task: &TaskScore) -> String {
    let mut row = format!("{:<32} {:>9}", task.task, thousands(task.questions as u64));
    match (&task.accuracy, task.chance) {
        (Some(accuracy), Some(chance)) => {
            let _ = write!(row, " {chance:>7.3}");
            for figure in [
                accuracy.raw,
                accuracy.per_token,
                accuracy.per_character,
                accuracy.per_byte,
                accuracy.unconditional,
            ] {
                let _ = write!(row, " {:>14}", self::figure(&figure, 3));
            }
        }
        _ => {
            let _ = write!(row, " {:>7}{}", "–", format!(" {:>14}", "–").repeat(5));
        }
    }
    let _ = write!(row, " {:>17}", figure(&task.gold_bits_per_byte, 4));
    row
}

/// `0.731 ± 0.012`.
fn figure(figure: &Figure, digits: usize) -> String {
    let value = figure.value;
    match figure.standard_error {
        Some(error) => format!("{value:.digits$} ± {error:.digits$}"),
        None => format!("{value:.digits$}"),
    }
}
