//! The pictures of a sparse model's routers.

use serde_json::Value;

use super::chart::{Axis, HeatMap, Lines, Series};
use super::figure::Figure;
use super::log::Log;
use super::series::{ended, merged, thinned};
use super::table::Table;

/// A figure that every router has in a `step` line.
struct RouterFigure {
    /// Its field.
    field: &'static str,
    /// What files that hold it are called.
    id: &'static str,
    /// Its heading.
    title: &'static str,
    /// Whether it is shown where it is 0 throughout, which says something too.
    even_zero: bool,
}

/// All of them.
const ROUTER_FIGURES: [RouterFigure; 5] = [
    RouterFigure {
        field: "effective_experts",
        id: "effective-experts",
        title: "Effective number of experts by router",
        even_zero: false,
    },
    RouterFigure {
        field: "max_violation",
        id: "max-violation",
        title: "The fullest expert's load above its share, by router",
        even_zero: false,
    },
    RouterFigure {
        field: "entropy",
        id: "router-entropy",
        title: "Entropy of the router, 1 where it has no opinion",
        even_zero: false,
    },
    RouterFigure {
        field: "dead",
        id: "dead-experts",
        title: "Experts that got no token, by router",
        even_zero: true,
    },
    RouterFigure {
        field: "dropped",
        id: "dropped",
        title: "Share of token copies that a capacity dropped, by router",
        even_zero: false,
    },
];

/// The routers of a sparse model.
pub(super) fn routers(log: &Log) -> Vec<Figure> {
    let steps: Vec<(f64, &Vec<Value>)> = log
        .of("step")
        .filter_map(|line| Some((line["step"].as_f64()?, line["routers"].as_array()?)))
        .collect();
    let curves = ROUTER_FIGURES.iter();
    let curves = curves.filter_map(|figure| by_router(figure, &steps));
    curves.chain(expert_load(&steps)).collect()
}

/// A figure of every router by step.
fn by_router(figure: &RouterFigure, steps: &[(f64, &Vec<Value>)]) -> Option<Figure> {
    let RouterFigure {
        field,
        id,
        title,
        even_zero,
    } = figure;
    let mut layers: Vec<u64> = Vec::new();
    for router in steps.iter().flat_map(|(_, routers)| *routers) {
        let layer = router["layer"].as_u64().unwrap_or(0);
        if !layers.contains(&layer) {
            layers.push(layer);
        }
    }
    let points = |layer: &u64| -> Vec<(f64, f64)> {
        let found = steps.iter().filter_map(|(step, routers)| {
            let router = routers.iter().find(|router| router["layer"] == *layer)?;
            Some((*step, router[field].as_f64()?))
        });
        found.collect()
    };
    let all: Vec<Vec<(f64, f64)>> = layers.iter().map(points).collect();
    let moves = all.iter().flatten().any(|(_, value)| *value != 0.0);
    if all.is_empty() || (!moves && !even_zero) {
        return None;
    }
    let columns: Vec<String> = layers
        .iter()
        .map(|layer| format!("layer_{layer}"))
        .collect();
    let columns = std::iter::once("step").chain(columns.iter().map(String::as_str));
    let table = merged(
        &columns.collect::<Vec<_>>(),
        &all.iter().collect::<Vec<_>>(),
    );
    let alt = layers
        .iter()
        .zip(&all)
        .map(|(layer, points)| ended(&format!("{title}, layer {layer}"), points));
    let alt = alt.collect();
    let series = layers.iter().zip(&all).map(|(layer, points)| {
        let curve: Series = thinned(points).bare();
        curve.named(&format!("layer {layer}"))
    });
    let chart = Lines {
        x: Axis::new("step"),
        y: Axis::default(),
        series: series.collect(),
    };
    Some(Figure::new(id, title, alt, &chart, table))
}

/// The load of each expert in the last step that told it.
fn expert_load(steps: &[(f64, &Vec<Value>)]) -> Option<Figure> {
    let tells = |routers: &[Value]| routers.iter().any(|router| router["load"].is_array());
    let (step, routers) = steps.iter().rev().find(|(_, routers)| tells(routers))?;
    let loads = routers
        .iter()
        .filter_map(|router| router["load"].as_array());
    let experts = loads.map(Vec::len).max()?;
    let rows: Vec<String> = routers
        .iter()
        .map(|router| router["layer"].to_string())
        .collect();
    let cells: Vec<Vec<Option<f64>>> = routers
        .iter()
        .map(|router| {
            let load = (0..experts).map(|expert| router["load"][expert].as_f64());
            load.collect()
        })
        .collect();
    let mut table = Table::new(["layer", "expert", "load"]);
    for (row, cells) in rows.iter().zip(&cells) {
        for (expert, load) in cells.iter().enumerate() {
            table.push([row.as_str().into(), (expert as u64).into(), (*load).into()]);
        }
    }
    let map = HeatMap {
        x_label: "expert".to_string(),
        y_label: "layer".to_string(),
        x: (0..experts).map(|expert| expert as f64).collect(),
        rows,
        cells,
        log: false,
    };
    let title = format!("Load of each expert over its share, in step {step}");
    let alt = format!("Load of each expert in step {step}, 1 being its equal share.");
    Some(Figure::new("expert-load", &title, alt, &map, table))
}
