//! What can be concluded: the tables, and their pictures.

use crate::lab::compare::{Comparison, View, signed};
use crate::report::Section;
use crate::report::chart::{Axis, Interval, Intervals};
use crate::report::figure::Figure;
use crate::report::table::{Cell, Table};

pub(super) fn verdicts(comparison: &Comparison) -> Section {
    let mut section = Section {
        title: "Verdicts".to_string(),
        words: vec![
            "The difference is the validation loss at the end, in nats per token, of an arm less that of its baseline, for each \
             seed on the same batches in the same order; below 0 the arm is better. It counts as shown where the bootstrap's and \
             Student's interval both leave out 0. \"No difference shown\" does not say that there is none."
                .to_string(),
        ],
        ..Section::default()
    };
    for (index, view) in comparison.views.iter().enumerate() {
        section
            .tables
            .push((view.title.clone(), verdict_table(comparison, view)));
        section
            .figures
            .push(interval_figure(comparison, view, index));
    }
    section
}

fn verdict_table(comparison: &Comparison, view: &View) -> Table {
    let mut table = Table::new([
        "arm",
        "validation loss",
        "± over seeds",
        "bits per byte",
        "baseline",
        "difference",
        "bootstrap 95 %",
        "Student 95 %",
        "verdict",
    ]);
    let noted = view.rows.iter().any(|row| row.note.is_some());
    if noted {
        table.columns.push("note".to_string());
    }
    for row in &view.rows {
        let arm = comparison.arm(&row.arm);
        let number = |value: Option<f64>| Cell::from(value.map(|value| format!("{value:.4}")));
        let range = |range: Option<[f64; 2]>| {
            Cell::from(range.map(|[low, high]| format!("{} to {}", signed(low), signed(high))))
        };
        let paired = row.paired.as_ref();
        let mut cells: Vec<Cell> = vec![
            row.arm.as_str().into(),
            number(arm.and_then(|arm| arm.mean)),
            number(arm.and_then(|arm| arm.deviation)),
            number(arm.and_then(|arm| arm.bits_per_byte)),
            if row.arm == row.baseline {
                Cell::Empty
            } else {
                row.baseline.as_str().into()
            },
            paired.map(|paired| signed(paired.mean)).into(),
            range(paired.and_then(|paired| paired.bootstrap)),
            range(paired.and_then(|paired| paired.student)),
            row.verdict.words().into(),
        ];
        if noted {
            cells.push(row.note.clone().into());
        }
        table.push(cells);
    }
    table
}

fn interval_figure(comparison: &Comparison, view: &View, index: usize) -> Figure {
    let mut table = Table::new([
        "arm",
        "baseline",
        "mean_difference",
        "bootstrap_low",
        "bootstrap_high",
        "student_low",
        "student_high",
        "verdict",
    ]);
    let mut rows = Vec::new();
    for row in view.rows.iter().filter(|row| row.arm != row.baseline) {
        let paired = row.paired.as_ref();
        let of = |range: Option<[f64; 2]>, side: usize| Cell::from(range.map(|range| range[side]));
        let (bootstrap, student) = (
            paired.and_then(|paired| paired.bootstrap),
            paired.and_then(|paired| paired.student),
        );
        table.push([
            row.arm.as_str().into(),
            row.baseline.as_str().into(),
            paired.map(|paired| paired.mean).into(),
            of(bootstrap, 0),
            of(bootstrap, 1),
            of(student, 0),
            of(student, 1),
            row.verdict.words().into(),
        ]);
        let mut arms = comparison.arms.iter();
        rows.push(Interval {
            name: row.arm.clone(),
            // As in the curves.
            place: arms.position(|arm| arm.arm.name == row.arm).unwrap_or(0),
            mean: paired.map(|paired| paired.mean),
            range: student,
            values: row
                .differences
                .iter()
                .map(|(_, difference)| *difference)
                .collect(),
            words: row.verdict.words().to_string(),
        });
    }
    let alt = rows.iter().map(|row| match (row.mean, row.range) {
        (Some(mean), Some([low, high])) => {
            format!(
                "{}: {} (Student {} to {}). ",
                row.name,
                signed(mean),
                signed(low),
                signed(high)
            )
        }
        (Some(mean), None) => format!("{}: {}. ", row.name, signed(mean)),
        _ => format!("{}: {}. ", row.name, row.words),
    });
    let alt = alt.collect();
    let chart = Intervals {
        x: Axis::new("nats per token beside the baseline; left is better"),
        mark: Some(0.0),
        rows,
    };
    let title = format!(
        "Differences, mean with Student's interval and each seed: {}",
        lower(&view.title)
    );
    Figure::new(
        &format!("differences-{}", index + 1),
        &title,
        alt,
        &chart,
        table,
    )
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_lowercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
