//! The pictures of a run.

use super::chart::{Axis, HeatMap, Lines, Series};
use super::figure::Figure;
use super::layer_figures::LAYER_FIGURES;
use super::log::Log;
use super::series::{ended, marked, merged, short, thinned};
use super::table::Table;

type Figures = Vec<Figure>;

/// Loss, bits per byte, learning rate, norm of the gradient.
pub(super) fn learning(log: &Log) -> Figures {
    let mut figures = Vec::new();
    let loss = log.column("step", "loss");
    let validation = log.column("evaluation", "nats_per_token");
    if !loss.is_empty() || !validation.is_empty() {
        let chart = lines(
            "nats per token",
            false,
            [
                (
                    "training (mean of neighbours, with their range)",
                    thinned(&loss),
                ),
                ("validation", marked(&validation)),
            ],
        );
        let said = [
            ended("training loss", &loss),
            ended("validation loss", &validation),
        ];
        let table = merged(
            &["step", "training_loss", "validation_loss"],
            &[&loss, &validation],
        );
        figures.push(Figure::new("loss", "Loss", said.concat(), &chart, table));
    }
    let bits = log.column("evaluation", "bits_per_byte");
    if !bits.is_empty() {
        let chart = lines("bits per byte", false, [("validation", marked(&bits))]);
        let table = merged(&["step", "bits_per_byte"], &[&bits]);
        let alt = ended("bits per byte of held-out text", &bits);
        figures.push(Figure::new(
            "bits-per-byte",
            "Bits per byte of held-out text",
            alt,
            &chart,
            table,
        ));
    }
    figures.extend(curve(
        log,
        "lr",
        "learning-rate",
        "Learning rate",
        "learning rate",
        false,
    ));
    figures.extend(curve(
        log,
        "grad_norm",
        "gradient-norm",
        "Norm of the gradient, before clipping",
        "norm",
        true,
    ));
    figures
}

/// What every layer did, where `--diagnostics` recorded it.
pub(super) fn layers(log: &Log) -> Figures {
    let figures = LAYER_FIGURES.iter().filter_map(|figure| {
        let (steps, values) = log.layers("diagnostics", figure.path);
        (!steps.is_empty()).then(|| heat(figure.id, figure.title, &steps, &values, figure.log))
    });
    figures.collect()
}

/// Throughput, utilisation and how far steps move the weights.
pub(super) fn machine(log: &Log) -> Figures {
    let mut figures = Vec::new();
    figures.extend(curve(
        log,
        "tokens_per_s",
        "throughput",
        "Throughput of a step",
        "tokens per second",
        false,
    ));
    figures.extend(curve(
        log,
        "mfu",
        "mfu",
        "Model FLOPs utilisation",
        "share of the peak",
        false,
    ));
    let mut groups: Vec<String> = Vec::new();
    for line in log.of("step") {
        for group in line["update_ratios"]
            .as_object()
            .into_iter()
            .flat_map(|ratios| ratios.keys())
        {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
    }
    if !groups.is_empty() {
        let series: Vec<Series> = groups
            .iter()
            .map(|group| {
                thinned(&log.column("step", &format!("update_ratios.{group}")))
                    .named(group)
                    .bare()
            })
            .collect();
        let columns: Vec<Vec<(f64, f64)>> = groups
            .iter()
            .map(|group| log.column("step", &format!("update_ratios.{group}")))
            .collect();
        let mut names = vec!["step"];
        names.extend(groups.iter().map(String::as_str));
        let table = merged(&names, &columns.iter().collect::<Vec<_>>());
        let alt = groups
            .iter()
            .zip(&columns)
            .map(|(group, points)| ended(&format!("‖Δw‖/‖w‖ of {group}"), points))
            .collect();
        let chart = Lines {
            x: Axis::new("step"),
            y: Axis::log("‖Δw‖/‖w‖"),
            series,
        };
        figures.push(Figure::new(
            "update-ratios",
            "How far steps move the weights",
            alt,
            &chart,
            table,
        ));
    }
    figures
}

/// A number of each step.
fn curve(
    log: &Log,
    field: &str,
    id: &str,
    title: &str,
    label: &str,
    log_scale: bool,
) -> Option<Figure> {
    let points = log.column("step", field);
    if points.is_empty() {
        return None;
    }
    let chart = lines(label, log_scale, [(title, thinned(&points))]);
    let table = merged(&["step", field], &[&points]);
    Some(Figure::new(id, title, ended(title, &points), &chart, table))
}

/// A figure of each layer over time.
pub(super) fn heat(
    id: &str,
    title: &str,
    steps: &[f64],
    values: &[Vec<Option<f64>>],
    log: bool,
) -> Figure {
    let mut table = Table::new(["step", "layer", "value"]);
    for (column, step) in steps.iter().enumerate() {
        for (layer, cells) in values.iter().enumerate() {
            let value = cells.get(column).copied().flatten();
            table.push([(*step as u64).into(), (layer as u64).into(), value.into()]);
        }
    }
    let last = |cells: &Vec<Option<f64>>| cells.iter().rev().find_map(|cell| *cell);
    let (first_layer, last_layer) = (values.first().and_then(last), values.last().and_then(last));
    let alt = match (first_layer, last_layer) {
        (Some(first), Some(end)) => format!(
            "{title}: at the last look {} in the first layer and {} in the last.",
            short(first),
            short(end)
        ),
        _ => format!("{title}."),
    };
    let map = HeatMap {
        x_label: "step".to_string(),
        y_label: "layer".to_string(),
        x: steps.to_vec(),
        rows: (0..values.len()).map(|layer| layer.to_string()).collect(),
        cells: values.to_vec(),
        log,
    };
    Figure::new(id, title, alt, &map, table)
}

fn lines<const N: usize>(label: &str, log: bool, series: [(&str, Series); N]) -> Lines {
    let series = series
        .into_iter()
        .filter(|(_, series)| !series.points.is_empty());
    Lines {
        x: Axis::new("step"),
        y: if log {
            Axis::log(label)
        } else {
            Axis::new(label)
        },
        series: series.map(|(name, series)| series.named(name)).collect(),
    }
}
