//! The pictures of a sparse model's routers.

use super::chart::{Axis, HeatMap, Lines, Series};
use super::figure::Figure;
use super::log::Log;
use super::series::{ended, merged, thinned};
use super::table::Table;

/// The routers of a sparse model.
pub(super) fn routers(log: &Log) -> Vec<Figure> {
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
