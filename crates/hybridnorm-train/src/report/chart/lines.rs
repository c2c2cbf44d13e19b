//! Curves, with bands around them.

use svg::node::element::{Circle, Polygon, Polyline};

use super::frame::{Axis, Frame, bounds, room};
use super::{Chart, HEIGHT, WIDTH, colour, dashes, legend, legend_height, paper};

/// A curve.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct Series {
    /// What it is called.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
    /// The lowest and highest value at each x of a band around it; empty for none.
    pub band: Vec<(f64, f64, f64)>,
    /// Whether points are marked.
    pub marked: bool,
}

/// Curves over a common axis.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct Lines {
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical one.
    pub y: Axis,
    /// The curves; the place in this list is the colour.
    pub series: Vec<Series>,
}

impl Lines {
    fn of(&self, (x, y): (f64, f64)) -> Option<(f64, f64)> {
        Some((self.x.of(x)?, self.y.of(y)?))
    }

    /// The edge of a band, from left to right.
    fn edge<'a>(
        &'a self,
        band: &'a [(f64, f64, f64)],
        pick: fn(&(f64, f64, f64)) -> (f64, f64),
    ) -> impl DoubleEndedIterator<Item = (f64, f64)> + 'a {
        band.iter().map(pick).filter_map(|point| self.of(point))
    }
}

impl Chart for Lines {
    fn svg(&self) -> String {
        let curves = self.series.iter().flat_map(|series| {
            let points = series.points.iter().filter_map(|point| self.of(*point));
            let low = self.edge(&series.band, |(x, low, _)| (*x, *low));
            points
                .chain(low)
                .chain(self.edge(&series.band, |(x, _, high)| (*x, *high)))
        });
        let points: Vec<(f64, f64)> = curves.collect();
        let [left, right] = bounds(points.iter().map(|point| point.0));
        let y = room(points.iter().map(|point| point.1));
        let frame = Frame {
            across: [self.y.room(y), WIDTH - 14.0],
            down: [12.0, HEIGHT - 46.0],
            x: match left < right {
                true => [left, right],
                false => room(points.iter().map(|point| point.0)),
            },
            y,
        };
        let names: Vec<&str> = self
            .series
            .iter()
            .map(|series| series.name.as_str())
            .collect();
        let mut document = paper(HEIGHT + legend_height(&names));
        document = frame.y_axis(frame.x_axis(document, &self.x), &self.y);
        let pixel = |(x, y): (f64, f64)| format!("{},{}", frame.across(x), frame.down(y));
        let path = |points: &mut dyn Iterator<Item = (f64, f64)>| {
            points.map(pixel).collect::<Vec<_>>().join(" ")
        };
        for (index, series) in self.series.iter().enumerate() {
            let high = self.edge(&series.band, |(x, _, high)| (*x, *high)).rev();
            let mut around = self
                .edge(&series.band, |(x, low, _)| (*x, *low))
                .chain(high);
            let around = path(&mut around);
            if !around.is_empty() {
                let band = Polygon::new().set("points", around);
                document = document.add(band.set("fill", colour(index)).set("fill-opacity", 0.18));
            }
        }
        for (index, series) in self.series.iter().enumerate() {
            let points = || series.points.iter().filter_map(|point| self.of(*point));
            let curve = Polyline::new().set("points", path(&mut points()));
            let curve = curve.set("fill", "none").set("stroke-linejoin", "round");
            let curve = curve.set("stroke-dasharray", dashes(index));
            document = document.add(curve.set("stroke", colour(index)).set("stroke-width", 2));
            if series.marked || points().count() == 1 {
                for (x, y) in points() {
                    let dot = Circle::new()
                        .set("cx", frame.across(x))
                        .set("cy", frame.down(y));
                    document = document.add(dot.set("r", 3).set("fill", colour(index)));
                }
            }
        }
        if names.len() > 1 {
            document = legend(document, HEIGHT, &names);
        }
        document.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing that a log may hold keeps a picture from being drawn.
    #[test]
    fn figures_that_are_not_finite_are_left_out() {
        let chart = |points: &[(f64, f64)], log| Lines {
            x: Axis::new("step"),
            y: Axis {
                label: "loss".to_string(),
                log,
            },
            series: vec![Series {
                name: "a < b".to_string(),
                points: points.to_vec(),
                ..Series::default()
            }],
        };
        for points in [
            &[][..],
            &[(1.0, 2.0)],
            &[(1.0, f64::NAN), (2.0, f64::INFINITY)],
            &[(1.0, 0.0), (2.0, -1.0), (3.0, 5.0)],
            &[(1.0, 1e300), (2.0, 1e-300)],
        ] {
            for log in [false, true] {
                let svg = chart(points, log).svg();
                assert!(svg.starts_with("<svg") && svg.ends_with("</svg>"), "{svg}");
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn names_are_no_markup() {
        let named = |name: &str| Series {
            name: name.to_string(),
            ..Series::default()
        };
        let chart = Lines {
            series: vec![named("<script>"), named("b & c")],
            ..Lines::default()
        };
        let svg = chart.svg();
        assert!(
            !svg.contains("<script>") && svg.contains("b &amp; c"),
            "{svg}"
        );
    }
}
