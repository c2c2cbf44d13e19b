//! Each run, and how fast.

use super::curves::spread;
use crate::lab::compare::{ArmResults, Comparison, Outcome};
use crate::report::Section;
use crate::report::chart::{Axis, Interval, Intervals};
use crate::report::figure::Figure;
use crate::report::series::short;
use crate::report::table::{Cell, Table};

/// A figure of a run that has ended.
type Pick = fn(&Outcome) -> Option<f64>;

pub(super) fn runs(comparison: &Comparison) -> Section {
    let mut table = Table::new([
        "arm",
        "seed",
        "state",
        "validation loss",
        "bits per byte",
        "training loss",
        "steps",
        "tokens/s",
        "why",
    ]);
    for arm in &comparison.arms {
        for run in &arm.runs {
            let outcome = run.outcome.as_ref();
            let number = |pick: Pick| Cell::from(outcome.and_then(pick).map(short));
            table.push([
                arm.arm.name.as_str().into(),
                run.seed.into(),
                outcome
                    .map_or("unfinished".to_string(), |outcome| {
                        outcome.state.to_string()
                    })
                    .into(),
                number(|outcome| outcome.validation_loss),
                number(|outcome| outcome.bits_per_byte),
                number(|outcome| outcome.training_loss),
                outcome.map(|outcome| outcome.steps).into(),
                number(|outcome| outcome.tokens_per_s),
                outcome.and_then(|outcome| outcome.reason.clone()).into(),
            ]);
        }
    }
    let values = |arm: &ArmResults, pick: Pick| {
        let outcomes = arm.runs.iter().filter_map(|run| run.outcome.as_ref());
        outcomes.filter_map(pick).collect::<Vec<f64>>()
    };
    let mut figures = Vec::new();
    for (id, title, label, pick) in [
        (
            "final-loss",
            "Validation loss at the end: mean and each seed",
            "nats per token",
            (|outcome| outcome.validation_loss) as Pick,
        ),
        (
            "throughput",
            "Throughput, the median step: mean and each run (the machine may have done other work)",
            "tokens per second",
            (|outcome| outcome.tokens_per_s) as Pick,
        ),
    ] {
        let mut numbers = Table::new(["arm", "seed", label]);
        let rows: Vec<Interval> = comparison
            .arms
            .iter()
            .enumerate()
            .map(|(place, arm)| {
                for run in &arm.runs {
                    if let Some(value) = run.outcome.as_ref().and_then(pick) {
                        numbers.push([arm.arm.name.as_str().into(), run.seed.into(), value.into()]);
                    }
                }
                let values = values(arm, pick);
                Interval {
                    name: arm.arm.name.clone(),
                    place,
                    mean: (!values.is_empty()).then(|| spread(&values).0),
                    range: None,
                    values,
                    words: if arm.diverged() > 0 {
                        "diverged"
                    } else {
                        "unfinished"
                    }
                    .to_string(),
                }
            })
            .collect();
        let alt = rows.iter().map(|row| match row.mean {
            Some(mean) => format!("{}: {}. ", row.name, short(mean)),
            None => format!("{}: {}. ", row.name, row.words),
        });
        let alt = alt.collect();
        let chart = Intervals {
            x: Axis::new(label),
            mark: None,
            rows,
        };
        figures.push(Figure::new(id, title, alt, &chart, numbers));
    }
    Section {
        title: "Runs".to_string(),
        tables: vec![("Every run".to_string(), table)],
        figures,
        ..Section::default()
    }
}
