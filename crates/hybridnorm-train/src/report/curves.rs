//! Curves over something else than steps: over layers, learning rates, factors.

use super::chart::{Axis, Lines, Series};
use super::figure::Figure;
use super::series::ended;
use super::table::Table;

/// Curves by name, in the order in which they were first named: so each has its colour in all pictures.
#[derive(Debug, Default)]
pub(super) struct Curves(Vec<(String, Vec<(f64, f64)>)>);

impl Curves {
    /// The points of the curve of this name.
    pub(super) fn of(&mut self, name: String) -> &mut Vec<(f64, f64)> {
        let found = self.0.iter().position(|(known, _)| *known == name);
        let at = found.unwrap_or_else(|| {
            self.0.push((name, Vec::new()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }
}

/// Curves over a common axis; where a curve has several values at one place, their mean and range. None where there is no point.
pub(super) fn by_x(
    id: &str,
    title: &str,
    [x, y]: [&str; 2],
    [log_x, log_y]: [bool; 2],
    curves: Curves,
) -> Option<Figure> {
    let axis = |label: &str, log: bool| {
        if log {
            Axis::log(label)
        } else {
            Axis::new(label)
        }
    };
    let mut table = Table::new(["model", x, y]);
    let mut series = Vec::new();
    for (name, mut points) in curves.0 {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (place, value) in &points {
            table.push([name.as_str().into(), (*place).into(), (*value).into()]);
        }
        let mut curve = Series {
            name,
            marked: true,
            ..Series::default()
        };
        for chunk in points.chunk_by(|a, b| a.0 == b.0) {
            let values = || chunk.iter().map(|point| point.1);
            let place = chunk[0].0;
            curve
                .points
                .push((place, values().sum::<f64>() / chunk.len() as f64));
            if chunk.len() > 1 {
                let (low, high) = (
                    values().fold(f64::INFINITY, f64::min),
                    values().fold(f64::NEG_INFINITY, f64::max),
                );
                curve.band.push((place, low, high));
            }
        }
        series.push(curve);
    }
    if table.rows.is_empty() {
        return None;
    }
    let alt = series
        .iter()
        .map(|series| {
            ended(&series.name, &series.points).replace(" at step ", &format!(" at {x} "))
        })
        .collect();
    let chart = Lines {
        x: axis(x, log_x),
        y: axis(y, log_y),
        series,
    };
    Some(Figure::new(id, title, alt, &chart, table))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_keep_their_order_and_their_points() {
        let mut curves = Curves::default();
        for (name, point) in [("pre", 0.0), ("hybrid", 1.0), ("pre", 2.0)] {
            curves.of(name.to_string()).push((point, point));
        }
        let expected = [
            ("pre".to_string(), vec![(0.0, 0.0), (2.0, 2.0)]),
            ("hybrid".to_string(), vec![(1.0, 1.0)]),
        ];
        assert_eq!(curves.0, expected);
    }
}
