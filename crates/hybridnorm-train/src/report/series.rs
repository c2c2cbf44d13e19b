//! Numbers by step: as curves, as tables, in words.

use std::collections::BTreeMap;

use super::chart::Series;
use super::table::{Cell, Table};

/// Most points of a curve; the mean of its neighbours stands for the rest.
const POINTS: usize = 400;

impl Series {
    pub(super) fn named(self, name: &str) -> Self {
        Self {
            name: name.to_string(),
            ..self
        }
    }

    /// Without its band.
    pub(super) fn bare(self) -> Self {
        Self {
            band: Vec::new(),
            ..self
        }
    }
}

/// A curve whose points are marked, if they are few.
pub(super) fn marked(points: &[(f64, f64)]) -> Series {
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
    let mut rows: BTreeMap<u64, Vec<Option<f64>>> = BTreeMap::new();
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

/// `Training loss: 5.55 at step 1, 1.41 at step 500, between 1.39 and 5.55. `
pub(super) fn ended(what: &str, points: &[(f64, f64)]) -> String {
    let (Some((from, first)), Some((to, last))) = (points.first(), points.last()) else {
        return String::new();
    };
    if from == to {
        return format!("{what}: {} at step {from}. ", short(*first));
    }
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
