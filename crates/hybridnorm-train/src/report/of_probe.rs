//! The report of a probe.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::curves::{Curves, by_x};
use super::error::ReportError;
use super::layer_figures::{LAYER_FIGURES, LayerFigure};
use super::log::{Log, at};
use super::of_run::flatten;
use super::series::short;
use super::table::{Cell, Table};
use super::{Report, Section};
use crate::lab::probe::{PROBE, SUMMARY, Summary};

pub(super) fn report(dir: &Path) -> Result<Report, ReportError> {
    let path = dir.join(PROBE);
    let log = Log::read(&path)?;
    // A probe that was stopped has none yet.
    let summary = std::fs::read_to_string(dir.join(SUMMARY)).unwrap_or_default();
    let summary: Option<Summary> = serde_json::from_str(&summary).ok();
    let mut depths: Vec<u64> = log
        .of("layers")
        .filter_map(|line| line["depth"].as_u64())
        .collect();
    depths.sort_unstable();
    depths.dedup();
    let mut sections: Vec<Section> = summary.iter().map(tables).collect();
    for depth in depths {
        sections.push(layers(&log, depth));
    }
    sections.extend(rates(&log));
    sections.extend(inits(&log));
    sections.extend(coupling(&log));
    sections.push(setting(&log));
    Ok(Report {
        title: "Placements probed".to_string(),
        answer: summary.map(|summary| summary.answer),
        sections,
    })
}

/// The tables that the command ends with.
fn tables(summary: &Summary) -> Section {
    let tables = summary.tables().into_iter().map(|summary| {
        let mut table = Table::new(summary.columns);
        for row in summary.rows {
            table.push(row.into_iter().map(Cell::from));
        }
        (summary.title.to_string(), table)
    });
    Section {
        title: "Summary".to_string(),
        tables: tables.collect(),
        ..Section::default()
    }
}

/// What the curves of a model go by.
fn subject(line: &Value) -> String {
    let placement = line["placement"].as_str().unwrap_or_default();
    match line["init"].as_str() {
        Some(init) => format!("{placement} ({init})"),
        None => placement.to_string(),
    }
}

/// Every layer of the models of a depth, in the first and the last step of the short run.
fn layers(log: &Log, depth: u64) -> Section {
    let mut figures = Vec::new();
    for LayerFigure {
        path,
        id,
        title,
        unit,
        log: log_axis,
    } in LAYER_FIGURES
    {
        for (which, index) in [("first", 0), ("last", usize::MAX)] {
            let mut steps = Vec::new();
            let mut curves = Curves::default();
            for line in log.of("layers").filter(|line| line["depth"] == depth) {
                let Some(looks) = line["looks"]
                    .as_array()
                    .filter(|looks| looks.len() > 1 || index == 0)
                else {
                    continue;
                };
                let Some(look) = looks.get(index.min(looks.len().saturating_sub(1))) else {
                    continue;
                };
                steps.extend(look["step"].as_u64());
                let values = at(look, path).as_array().into_iter().flatten().enumerate();
                let points =
                    values.filter_map(|(layer, value)| Some((layer as f64, value.as_f64()?)));
                curves.of(subject(line)).extend(points);
            }
            let step = steps.iter().max().copied().unwrap_or(0);
            let title = format!("{title}, step {step}");
            let id = format!("{id}-{depth}-{which}");
            figures.extend(by_x(
                &id,
                &title,
                ["layer", unit],
                [false, log_axis],
                curves,
            ));
        }
    }
    Section {
        title: format!("{depth} layers"),
        figures,
        ..Section::default()
    }
}

/// Loss against the learning rate.
fn rates(log: &Log) -> Option<Section> {
    let mut depths: BTreeMap<u64, Curves> = BTreeMap::new();
    let mut table = Table::new(TRIAL);
    for line in log.of("learning_rate") {
        let depth = line["depth"].as_u64().unwrap_or(0);
        let curve = depths.entry(depth).or_default().of(subject(line));
        if let (Some(lr), Some(loss)) = (line["lr"].as_f64(), line["final_loss"].as_f64())
            && line["diverged"].is_null()
        {
            curve.push((lr, loss));
        }
        table.push(trial(line));
    }
    let mut figures = Vec::new();
    for (depth, curves) in depths {
        let id = format!("learning-rate-{depth}");
        let title = format!(
            "Loss of a short run against the learning rate, {depth} layers (diverged ones left out)"
        );
        figures.extend(by_x(
            &id,
            &title,
            ["learning rate", "nats per token"],
            [true, false],
            curves,
        ));
    }
    (!table.rows.is_empty()).then(|| Section {
        title: "Learning rates".to_string(),
        tables: vec![("Every rate that was tried".to_string(), table)],
        figures,
        ..Section::default()
    })
}

/// Loss after a short run from each initialisation.
fn inits(log: &Log) -> Option<Section> {
    let mut table = Table::new(TRIAL);
    for line in log.of("init") {
        table.push(trial(line));
    }
    (!table.rows.is_empty()).then(|| Section {
        title: "Initialisations".to_string(),
        tables: vec![("A short run from each".to_string(), table)],
        ..Section::default()
    })
}

/// The columns of [`trial`].
const TRIAL: [&str; 7] = [
    "placement",
    "layers",
    "init",
    "seed",
    "learning rate",
    "loss",
    "how it ended",
];

/// How a short run went.
fn trial(line: &Value) -> Vec<Cell> {
    let text = |field: &str| Cell::from(line[field].as_str());
    let ended = match line["diverged"]["reason"].as_str() {
        Some(reason) => format!("diverged: {reason}"),
        None => "finished".to_string(),
    };
    vec![
        text("placement"),
        line["depth"].as_u64().into(),
        text("init"),
        line["seed"].as_u64().into(),
        line["lr"].as_f64().map(short).into(),
        line["final_loss"].as_f64().map(short).into(),
        ended.into(),
    ]
}

/// How gradients follow the scale of the weights.
fn coupling(log: &Log) -> Option<Section> {
    let mut figures = Vec::new();
    let mut depths: Vec<u64> = log
        .of("coupling")
        .filter_map(|line| line["depth"].as_u64())
        .collect();
    depths.sort_unstable();
    depths.dedup();
    for depth in depths {
        let mut change = Curves::default();
        // In the first layer, by what is scaled: the gradient of W_Q over that with unscaled weights.
        let mut ratios: BTreeMap<String, Curves> = BTreeMap::new();
        for line in log.of("coupling").filter(|line| line["depth"] == depth) {
            let scales: Vec<f64> = line["scales"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_f64)
                .collect();
            let points = |values: &Value| {
                let values = values.as_array().into_iter().flatten();
                let points = scales.iter().zip(values);
                points
                    .filter_map(|(scale, value)| Some((*scale, value.as_f64()?)))
                    .collect::<Vec<_>>()
            };
            change
                .of(subject(line))
                .extend(points(&line["model"]["hidden_change"]));
            for layer in line["layers"].as_array().into_iter().flatten() {
                let scaled = layer["scaled"].as_str().unwrap_or_default();
                let norms = points(&layer["query"]);
                let unscaled = norms
                    .iter()
                    .find(|(scale, _)| *scale == 1.0)
                    .map(|(_, norm)| *norm);
                let (Some(unscaled), Some(0)) = (unscaled, layer["layer"].as_u64()) else {
                    continue;
                };
                let curve = ratios
                    .entry(scaled.to_string())
                    .or_default()
                    .of(subject(line));
                curve.extend(
                    norms
                        .into_iter()
                        .map(|(scale, norm)| (scale, norm / unscaled)),
                );
            }
        }
        let title = format!(
            "Change of the last stream where W_Q, W_K, W_V of all layers are scaled, {depth} layers"
        );
        figures.extend(by_x(
            &format!("hidden-change-{depth}"),
            &title,
            ["factor", "change over size"],
            [true, false],
            change,
        ));
        for (scaled, curves) in ratios {
            let title = format!(
                "‖∂S/∂W_Q‖ over that with unscaled weights, where W of {scaled} is scaled: first of {depth} layers"
            );
            figures.extend(by_x(
                &format!("coupling-{scaled}-{depth}"),
                &title,
                ["factor", "gradient of W_Q"],
                [true, true],
                curves,
            ));
        }
    }
    (!figures.is_empty()).then(|| Section {
        title: "Coupling of weight scales".to_string(),
        words: vec![
            "With norms on queries, keys and values, scaling their weights by c leaves attention's output as it is and divides their gradients by c; \
             with Pre-Norm, the gradient of W_Q grows with the other weights (the paper's Theorem 2)."
                .to_string(),
        ],
        figures,
        ..Section::default()
    })
}

fn setting(log: &Log) -> Section {
    let mut all = Table::new(["field", "value"]);
    for line in log.of("setting") {
        flatten("", line, &mut |field, value| {
            all.push([field.into(), value.into()])
        });
    }
    Section {
        title: "Setting".to_string(),
        tables: vec![("What all measurements share".to_string(), all)],
        ..Section::default()
    }
}
