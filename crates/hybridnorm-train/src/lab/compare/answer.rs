//! A comparison in words: a table, and one sentence that answers the question.

use core::fmt;

use super::arm::Axis;
use super::comparison::Comparison;
use super::contrast::{Row, View};
use super::stats::{LEAST, Verdict};
use crate::lab::words::list;
use crate::sizes::{counted, thousands};

/// The sentence.
pub(super) fn sentence(comparison: &Comparison) -> String {
    let Comparison {
        contrast,
        setting,
        seeds,
        views,
        ..
    } = comparison;
    let rows: Vec<&Row> = views.iter().flat_map(|view| &view.rows).collect();
    // Of two tables, the arms that stand in both are told of once.
    let mut told = std::collections::BTreeSet::new();
    let rows: Vec<&Row> = rows
        .into_iter()
        .filter(|row| told.insert((&row.arm, &row.baseline)))
        .collect();
    let mut parts = Vec::new();
    for (verdict, singular, plural) in [
        (Verdict::Diverged, "diverged", "diverged"),
        (Verdict::Better, "is better than", "are better than"),
        (Verdict::Worse, "is worse than", "are worse than"),
        (
            Verdict::NoDifferenceShown,
            "shows no difference from",
            "show no difference from",
        ),
        (
            Verdict::TooFewSeeds,
            "cannot be told apart by so few seeds from",
            "cannot be told apart by so few seeds from",
        ),
        (
            Verdict::NoBaseline,
            "came to its end where a baseline diverged:",
            "came to their end where a baseline diverged:",
        ),
        (
            Verdict::Unfinished,
            "is not finished beside",
            "are not finished beside",
        ),
    ] {
        let mut found: Vec<&&Row> = rows.iter().filter(|row| row.verdict == verdict).collect();
        found.sort_by(|a, b| mean(a).total_cmp(&mean(b)));
        if found.is_empty() {
            continue;
        }
        let names: Vec<String> = found.iter().map(|row| named(row)).collect();
        let words = if found.len() == 1 { singular } else { plural };
        let mut part = format!("{} {words}", list(&names));
        if verdict != Verdict::Diverged {
            part += &match contrast.axis {
                Axis::Placement | Axis::Init => format!(" {}", contrast.baseline),
                Axis::LearningRate => format!(" learning rate {}", contrast.baseline),
                Axis::Depth => format!(" {} layers", contrast.baseline),
            };
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return "There is one arm and nothing to hold it against.".to_string();
    }
    let seeds = counted(seeds.len() as u64, "seed");
    format!(
        "After {} tokens a run, over {seeds}, validation loss in nats per token: {}.",
        thousands(setting.tokens),
        parts.join("; "),
    )
}

fn mean(row: &Row) -> f64 {
    row.paired
        .as_ref()
        .map_or(f64::INFINITY, |paired| paired.mean)
}

/// `hybrid (−0.021)`.
fn named(row: &Row) -> String {
    match &row.paired {
        Some(paired) if row.verdict != Verdict::Diverged => {
            format!("{} ({})", row.arm, signed(paired.mean))
        }
        _ => row.arm.clone(),
    }
}

/// `+0.0210`, with a true minus sign.
pub(crate) fn signed(value: f64) -> String {
    format!("{value:+.4}").replace('-', "−")
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for view in &self.views {
            writeln!(f, "{}, beside {}:", view.title, self.contrast.baseline)?;
            self.table(view, f)?;
            writeln!(f)?;
        }
        if self.seeds.len() < LEAST {
            writeln!(
                f,
                "With {} of at least {LEAST} seeds no difference can be told from what seeds alone do: neither that there is one, \
                 nor that there is none.",
                self.seeds.len()
            )?;
        }
        let compared: usize = self.views.iter().map(|view| view.rows.len()).sum();
        if compared > 5 && self.seeds.len() >= LEAST {
            writeln!(
                f,
                "Of {compared} rows with nothing behind them, Student's intervals would leave out 0 in about one in twenty."
            )?;
        }
        writeln!(f, "{}", self.answer)
    }
}

impl Comparison {
    fn table(&self, view: &View, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "arm",
            "validation loss",
            "bits/byte",
            "difference",
            "bootstrap 95 %",
            "Student 95 %",
            "verdict",
        ];
        let mut rows = vec![header.map(str::to_string)];
        for row in &view.rows {
            let results = self.arm(&row.arm);
            let number =
                |value: Option<f64>| value.map_or("–".to_string(), |v| format!("{v:.4}"));
            let loss = results.and_then(|results| results.mean);
            let loss = match results.and_then(|results| results.deviation) {
                Some(deviation) => format!("{} ± {deviation:.4}", number(loss)),
                None => number(loss),
            };
            let range = |range: Option<[f64; 2]>| match range {
                Some([low, high]) => format!("{} to {}", signed(low), signed(high)),
                None => "–".to_string(),
            };
            let paired = row.paired.as_ref();
            rows.push([
                row.arm.clone(),
                loss,
                number(results.and_then(|results| results.bits_per_byte)),
                paired.map_or("–".to_string(), |paired| signed(paired.mean)),
                range(paired.and_then(|paired| paired.bootstrap)),
                range(paired.and_then(|paired| paired.student)),
                row.verdict.words().to_string(),
            ]);
        }
        let width = |column: usize| {
            let widths = rows.iter().map(|row| row[column].chars().count());
            widths.max().unwrap_or(0)
        };
        let widths: [usize; 7] = core::array::from_fn(width);
        for row in &rows {
            let mut line = String::from("   ");
            for (text, width) in row.iter().zip(widths) {
                line += &format!(" {text:<width$} ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        for note in view.rows.iter().filter_map(|row| {
            let note = row.note.as_ref()?;
            Some(format!("    {}: {note}", row.arm))
        }) {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}
