//! The pictures of a run.

use super::chart::{Axis, HeatMap, Lines, Series};
use super::figure::Figure;
use super::log::Log;
use super::table::{Cell, Table};

/// Most points of a curve; the mean of its neighbours stands for the rest.
const POINTS: usize = 400;

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
    let mut figures = Vec::new();
    for (field, id, title, log_scale) in [
        (
            "gradient_norm.attention",
            "gradient-norm-attention",
            "Gradient norm by layer: attention",
            true,
        ),
        (
            "gradient_norm.feed_forward",
            "gradient-norm-feed-forward",
            "Gradient norm by layer: feed-forward",
            true,
        ),
        (
            "activation_rms",
            "activation-rms",
            "RMS of the residual stream behind each layer",
            true,
        ),
        (
            "attention_entropy",
            "attention-entropy",
            "Entropy of attention by layer, in nats",
            false,
        ),
        (
            "largest_logit",
            "largest-logit",
            "Largest attention logit by layer",
            false,
        ),
        (
            "token_similarity",
            "token-similarity",
            "Mean cosine of pairs of tokens behind each layer",
            false,
        ),
        (
            "update_ratio.attention",
            "update-ratio-attention",
            "‖Δw‖/‖w‖ by layer: attention",
            true,
        ),
        (
            "update_ratio.feed_forward",
            "update-ratio-feed-forward",
            "‖Δw‖/‖w‖ by layer: feed-forward",
            true,
        ),
    ] {
        let (steps, values) = log.layers("diagnostics", field);
        if !steps.is_empty() {
            figures.push(heat(id, title, "layer", &steps, &values, log_scale));
        }
    }
    figures
}

/// The routers of a sparse model.
pub(super) fn routers(log: &Log) -> Figures {
    let mut figures = Vec::new();
    for (field, id, title) in [
        (
            "effective_experts",
            "effective-experts",
            "Effective number of experts by router",
        ),
        (
            "max_violation",
            "max-violation",
            "The fullest expert's load above its share, by router",
        ),
        (
            "entropy",
            "router-entropy",
            "Entropy of the router, 1 where it has no opinion",
        ),
        (
            "dead",
            "dead-experts",
            "Experts that got no token, by router",
        ),
        (
            "dropped",
            "dropped",
            "Share of token copies that a capacity dropped, by router",
        ),
    ] {
        let mut names: Vec<u64> = Vec::new();
        let steps: Vec<_> = log
            .of("step")
            .filter(|line| line["routers"].is_array())
            .collect();
        for router in steps
            .iter()
            .flat_map(|line| line["routers"].as_array())
            .flatten()
        {
            let layer = router["layer"].as_u64().unwrap_or(0);
            if !names.contains(&layer) {
                names.push(layer);
            }
        }
        let of = |layer: u64| Series {
            name: format!("layer {layer}"),
            points: steps
                .iter()
                .filter_map(|line| {
                    let mut routers = line["routers"].as_array()?.iter();
                    let router = routers.find(|router| router["layer"] == layer)?;
                    Some((line["step"].as_f64()?, router[field].as_f64()?))
                })
                .collect(),
            ..Series::default()
        };
        let all: Vec<Series> = names.iter().map(|layer| of(*layer)).collect();
        let moves = all
            .iter()
            .flat_map(|series| &series.points)
            .any(|(_, value)| *value != 0.0);
        if all.is_empty() || (!moves && field != "dead") {
            continue;
        }
        let mut columns = vec!["step".to_string()];
        columns.extend(names.iter().map(|layer| format!("layer_{layer}")));
        let points: Vec<&Vec<(f64, f64)>> = all.iter().map(|series| &series.points).collect();
        let table = merged(
            &columns.iter().map(String::as_str).collect::<Vec<_>>(),
            &points,
        );
        let alt = all
            .iter()
            .map(|series| ended(&format!("{title}, {}", series.name), &series.points));
        let alt = alt.collect::<String>();
        let chart = Lines {
            x: Axis::new("step"),
            y: Axis::default(),
            series: all
                .iter()
                .map(|series| Series {
                    band: Vec::new(),
                    ..thinned(&series.points).named(&series.name)
                })
                .collect(),
        };
        figures.push(Figure::new(id, title, alt, &chart, table));
    }
    let loads: Vec<_> = log
        .of("step")
        .filter_map(|line| {
            let routers = line["routers"].as_array()?;
            routers
                .iter()
                .any(|router| router["load"].is_array())
                .then_some((line["step"].as_f64()?, routers))
        })
        .collect();
    if let Some((step, last)) = loads.last() {
        let experts = last
            .iter()
            .filter_map(|router| router["load"].as_array())
            .map(Vec::len)
            .max()
            .unwrap_or(0);
        let x: Vec<f64> = (0..experts).map(|expert| expert as f64).collect();
        let rows: Vec<String> = last
            .iter()
            .map(|router| router["layer"].to_string())
            .collect();
        let cells: Vec<Vec<Option<f64>>> = last
            .iter()
            .map(|router| {
                (0..experts)
                    .map(|expert| router["load"][expert].as_f64())
                    .collect()
            })
            .collect();
        let title = format!("Load of each expert over its share, in step {step}");
        let mut table = Table::new(["layer", "expert", "load"]);
        for (row, cells) in rows.iter().zip(&cells) {
            for (expert, load) in cells.iter().enumerate() {
                table.push([row.as_str().into(), (expert as u64).into(), (*load).into()]);
            }
        }
        let map = HeatMap {
            x_label: "expert".to_string(),
            y_label: "layer".to_string(),
            x,
            rows,
            cells,
            log: false,
        };
        let alt = format!("Load of each expert in step {step}, 1 being its equal share.");
        figures.push(Figure::new("expert-load", &title, alt, &map, table));
    }
    figures
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
    y_label: &str,
    steps: &[f64],
    values: &[Vec<Option<f64>>],
    log: bool,
) -> Figure {
    let mut table = Table::new(["step", y_label, "value"]);
    for (column, step) in steps.iter().enumerate() {
        for (layer, cells) in values.iter().enumerate() {
            let value = cells.get(column).copied().flatten();
            table.push([count(*step), (layer as u64).into(), value.into()]);
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
        y_label: y_label.to_string(),
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

impl Series {
    fn named(self, name: &str) -> Self {
        Self {
            name: name.to_string(),
            ..self
        }
    }

    fn bare(self) -> Self {
        Self {
            band: Vec::new(),
            ..self
        }
    }
}

fn marked(points: &[(f64, f64)]) -> Series {
    Series {
        points: points.to_vec(),
        marked: points.len() <= 40,
        ..Series::default()
    }
}

/// A curve of at most so many points, each the mean of some neighbours, and the band of what they lie between.
pub(super) fn thinned(points: &[(f64, f64)]) -> Series {
    let each = points.len().div_ceil(POINTS).max(1);
    let smooth = points.len().div_ceil(60).max(1).max(each);
    let mean = |chunk: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| {
        chunk.iter().map(pick).sum::<f64>() / chunk.len() as f64
    };
    let chunks = || points.chunks(smooth);
    Series {
        points: chunks()
            .map(|chunk| (mean(chunk, |p| p.0), mean(chunk, |p| p.1)))
            .collect(),
        band: match smooth {
            1 => Vec::new(),
            _ => chunks()
                .map(|chunk| {
                    let values = || chunk.iter().map(|p| p.1);
                    (
                        mean(chunk, |p| p.0),
                        values().fold(f64::INFINITY, f64::min),
                        values().fold(f64::NEG_INFINITY, f64::max),
                    )
                })
                .collect(),
        },
        ..Series::default()
    }
}

/// Columns of numbers that share their first one, the step.
pub(super) fn merged(names: &[&str], columns: &[&Vec<(f64, f64)>]) -> Table {
    let mut rows: std::collections::BTreeMap<u64, Vec<Option<f64>>> =
        std::collections::BTreeMap::new();
    for (index, column) in columns.iter().enumerate() {
        for (step, value) in column.iter() {
            let row = rows
                .entry(*step as u64)
                .or_insert_with(|| vec![None; columns.len()]);
            row[index] = Some(*value);
        }
    }
    let mut table = Table::new(names.iter().copied());
    for (step, values) in rows {
        let values = values.into_iter().map(Cell::from);
        table.push(std::iter::once(Cell::Count(step)).chain(values));
    }
    table
}

fn count(step: f64) -> Cell {
    Cell::Count(step as u64)
}

/// `Training loss: from 5.55 at step 1 to 1.41 at step 500, lowest 1.39. `
pub(super) fn ended(what: &str, points: &[(f64, f64)]) -> String {
    let (Some((from, first)), Some((to, last))) = (points.first(), points.last()) else {
        return String::new();
    };
    let low = points.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
    format!(
        "{what}: {} at step {from}, {} at step {to}, between {} and {}. ",
        short(*first),
        short(*last),
        short(low),
        short(high)
    )
}

/// Four digits.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_string(),
        size if !(1e-3..1e6).contains(&size) => format!("{value:.2e}"),
        size if size < 10.0 => format!("{value:.4}"),
        size if size < 1000.0 => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}
