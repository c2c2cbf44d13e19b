//! The report of a comparison.

use std::collections::BTreeMap;
use std::path::Path;

use super::chart::{self, Interval, Intervals, Lines, Series};
use super::error::ReportError;
use super::figure::Figure;
use super::log::Log;
use super::of_run::flatten;
use super::run_figures::{ended, short};
use super::table::{Cell, Table};
use super::{Report, Section};
use crate::engine::{METRICS, stored_config};
use crate::lab::compare::{ArmResults, Axis, COMPARISON, Comparison, Outcome, View, signed};
use crate::sizes::thousands;

/// A figure of a run that has ended.
type Pick = fn(&Outcome) -> Option<f64>;

/// Training losses of a curve are means over this many parts of a run.
const PARTS: usize = 60;

pub(super) fn report(dir: &Path) -> Result<Report, ReportError> {
    let path = dir.join(COMPARISON);
    let comparison = Comparison::read(&path).map_err(|error| ReportError::File {
        path,
        reason: error.to_string(),
    })?;
    let mut sections = vec![verdicts(&comparison)];
    sections.push(curves(&comparison, dir)?);
    sections.push(runs(&comparison));
    sections.extend(differences(&comparison, dir));
    sections.push(setting(&comparison));
    Ok(Report {
        title: match comparison.contrast.axis {
            Axis::Placement => "Placements compared",
            Axis::Init => "Initialisations compared",
            Axis::LearningRate => "Learning rates compared",
            Axis::Depth => "Depths compared",
        }
        .to_string(),
        answer: Some(comparison.answer.clone()),
        sections,
    })
}

/// The tables, and their pictures.
fn verdicts(comparison: &Comparison) -> Section {
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
        section.figures.push(interval_figure(view, index));
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
        "",
    ]);
    for row in &view.rows {
        let arm = comparison.arm(&row.arm);
        let number = |value: Option<f64>| Cell::from(value.map(|value| format!("{value:.4}")));
        let range = |range: Option<[f64; 2]>| {
            Cell::from(range.map(|[low, high]| format!("{} to {}", signed(low), signed(high))))
        };
        let paired = row.paired.as_ref();
        table.push([
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
            row.note.clone().into(),
        ]);
    }
    table
}

fn interval_figure(view: &View, index: usize) -> Figure {
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
        rows.push(Interval {
            name: row.arm.clone(),
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
        x: chart::Axis::new("nats per token beside the baseline; left is better"),
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

/// Loss over time, the mean of the seeds and what they lie between.
fn curves(comparison: &Comparison, dir: &Path) -> Result<Section, ReportError> {
    let mut validation = Vec::new();
    let mut bits = Vec::new();
    let mut training = Vec::new();
    for arm in &comparison.arms {
        let logs = arm
            .runs
            .iter()
            .map(|run| Log::read(&dir.join(&run.dir).join(METRICS)));
        let logs: Vec<Log> = logs.collect::<Result<_, _>>()?;
        let column = |kind: &'static str, field: &str| {
            let of = logs.iter().map(|log| log.column(kind, field));
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
            x: chart::Axis::new("step"),
            y: chart::Axis::new(label),
            series,
        };
        figures.push(Figure::new(id, title, alt, &chart, table));
    }
    Ok(Section {
        title: "Learning curves".to_string(),
        figures,
        ..Section::default()
    })
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
fn spread(values: &[f64]) -> (f64, f64, f64) {
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

/// Each run, and how fast.
fn runs(comparison: &Comparison) -> Section {
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
            .map(|arm| {
                for run in &arm.runs {
                    if let Some(value) = run.outcome.as_ref().and_then(pick) {
                        numbers.push([arm.arm.name.as_str().into(), run.seed.into(), value.into()]);
                    }
                }
                let values = values(arm, pick);
                Interval {
                    name: arm.arm.name.clone(),
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
            x: chart::Axis::new(label),
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

/// The fields of the configuration in which arms differ.
fn differences(comparison: &Comparison, dir: &Path) -> Option<Section> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut names = vec!["field".to_string()];
    for arm in &comparison.arms {
        let config = stored_config(&dir.join(&arm.runs.first()?.dir)).ok()?;
        let value = serde_json::to_value(config).ok()?;
        flatten("", &value, &mut |field, value| {
            fields
                .entry(field)
                .or_insert_with(|| vec![String::new(); names.len() - 1])
                .push(value);
        });
        names.push(arm.arm.name.clone());
        let columns = names.len() - 1;
        fields
            .values_mut()
            .for_each(|values| values.resize(columns, String::new()));
    }
    let mut table = Table::new(names);
    for (field, values) in fields {
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            table
                .push(std::iter::once(Cell::from(field)).chain(values.into_iter().map(Cell::from)));
        }
    }
    (!table.rows.is_empty()).then(|| Section {
        title: "What the arms differ in".to_string(),
        tables: vec![(
            "Configuration of the first seed's runs, where it is not the same".to_string(),
            table,
        )],
        ..Section::default()
    })
}

/// What all runs share.
fn setting(comparison: &Comparison) -> Section {
    let setting = &comparison.setting;
    let mut table = Table::new(["what", "figure"]);
    let mut fact = |what: &str, figure: String| table.push([Cell::from(what), figure.into()]);
    let seeds: Vec<String> = comparison.seeds.iter().map(u64::to_string).collect();
    fact("seeds", seeds.join(", "));
    fact("steps of a run", thousands(setting.steps));
    fact("tokens of a run", thousands(setting.tokens));
    fact("data", setting.data.clone());
    fact("blake3 of the data", setting.data_blake3.clone());
    fact("devices", setting.devices.join(", "));
    if let Some(preset) = &setting.preset {
        fact("preset", preset.clone());
    }
    for arm in &comparison.arms {
        fact(
            &format!("parameters of {}", arm.arm.name),
            thousands(arm.parameters as u64),
        );
    }
    let method = &comparison.method;
    fact(
        "method",
        format!(
            "{}; percentile bootstrap with {} resamples of the pairs, seed {}; a difference is {}; at least {} pairs",
            method.quantity,
            method.resamples,
            method.bootstrap_seed,
            method.rule,
            method.least_pairs
        ),
    );
    let mut all = Table::new(["field", "value"]);
    flatten("", &setting.config, &mut |field, value| {
        all.push([field.into(), value.into()])
    });
    Section {
        title: "Setting".to_string(),
        tables: vec![
            ("What all runs share".to_string(), table),
            ("The configuration that arms change".to_string(), all),
        ],
        ..Section::default()
    }
}
