//! Loss over time, the mean of the seeds and what they lie between.

use std::collections::BTreeMap;

use super::Logs;
use crate::lab::compare::Comparison;
use crate::report::Section;
use crate::report::chart::{Axis, Lines, Series};
use crate::report::figure::Figure;
use crate::report::series::ended;
use crate::report::table::Table;

/// Training losses of a curve are means over this many parts of a run.
const PARTS: usize = 60;

/// Loss over time, the mean of the seeds and what they lie between.
pub(super) fn curves(comparison: &Comparison, logs: &[Logs]) -> Section {
    let mut validation = Vec::new();
    let mut bits = Vec::new();
    let mut training = Vec::new();
    for Logs { arm, runs } in logs {
        let column = |kind: &'static str, field: &str| {
            let of = runs.iter().map(|log| log.column(kind, field));
            of.collect::<Vec<_>>()
        };
        let name = &arm.arm.name;
        validation.push((name.clone(), column("evaluation", "nats_per_token")));
        bits.push((name.clone(), column("evaluation", "bits_per_byte")));
        let parts = column("step", "loss")
            .into_iter()
            .map(|loss| parts(&loss, comparison.setting.steps));
        training.push((name.clone(), parts.collect::<Vec<_>>()));
    }
    let mut figures = Vec::new();
    for (id, title, label, arms) in [
        (
            "validation-loss",
            "Validation loss, mean and range over seeds",
            "nats per token",
            validation,
        ),
        (
            "bits-per-byte",
            "Bits per byte of held-out text, mean and range over seeds",
            "bits per byte",
            bits,
        ),
        (
            "training-loss",
            "Training loss, mean and range over seeds",
            "nats per token",
            training,
        ),
    ] {
        let series: Vec<Series> = arms.iter().map(|(name, seeds)| band(name, seeds)).collect();
        let mut table = Table::new(["arm", "step", "mean", "least", "most", "seeds"]);
        for (name, seeds) in &arms {
            for (step, values) in by_step(seeds) {
                let (mean, low, high) = spread(&values);
                table.push([
                    name.as_str().into(),
                    step.into(),
                    mean.into(),
                    low.into(),
                    high.into(),
                    (values.len() as u64).into(),
                ]);
            }
        }
        if table.rows.is_empty() {
            continue;
        }
        let alt = series
            .iter()
            .map(|series| ended(&series.name, &series.points))
            .collect();
        let chart = Lines {
            x: Axis::new("step"),
            y: Axis::new(label),
            series,
        };
        figures.push(Figure::new(id, title, alt, &chart, table));
    }
    Section {
        title: "Learning curves".to_string(),
        figures,
        ..Section::default()
    }
}

/// Means over equal parts of a run, each at the step in its middle.
fn parts(loss: &[(f64, f64)], steps: u64) -> Vec<(f64, f64)> {
    let each = steps.div_ceil(PARTS as u64).max(1);
    let mut parts: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (step, value) in loss {
        parts
            .entry((*step as u64 - 1) / each)
            .or_default()
            .push(*value);
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    let middle = |part: u64| (part * each + each.div_ceil(2)) as f64;
    parts
        .into_iter()
        .map(|(part, values)| (middle(part), mean(values)))
        .collect()
}

fn by_step(seeds: &[Vec<(f64, f64)>]) -> BTreeMap<u64, Vec<f64>> {
    let mut steps: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (step, value) in seeds.iter().flatten() {
        steps.entry(*step as u64).or_default().push(*value);
    }
    steps
}

/// Mean, least and most.
pub(super) fn spread(values: &[f64]) -> (f64, f64, f64) {
    (
        values.iter().sum::<f64>() / values.len() as f64,
        values.iter().copied().fold(f64::INFINITY, f64::min),
        values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    )
}

fn band(name: &str, seeds: &[Vec<(f64, f64)>]) -> Series {
    let steps = by_step(seeds);
    let of = |(step, values): (&u64, &Vec<f64>)| (*step as f64, spread(values));
    Series {
        name: name.to_string(),
        points: steps
            .iter()
            .map(of)
            .map(|(step, (mean, ..))| (step, mean))
            .collect(),
        band: match seeds.len() {
            0 | 1 => Vec::new(),
            _ => steps
                .iter()
                .map(of)
                .map(|(step, (_, low, high))| (step, low, high))
                .collect(),
        },
        marked: false,
    }
}
