//! Means with intervals and the single values behind them, one below the other.

use svg::node::element::Circle;

use super::frame::{Axis, Frame, line, room};
use super::{Chart, INK, PAPER, WIDTH, colour, dashes, has_own_colour, paper, words};

/// Height of a row.
const ROW: f64 = 26.0;
/// Room for names.
const NAMES: f64 = 180.0;
/// Most characters of a name.
const LONGEST: usize = 24;

/// A row.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct Interval {
    /// What it is of.
    pub name: String,
    /// Its place among all that have a colour of their own.
    pub place: usize,
    /// The middle, if one is known.
    pub mean: Option<f64>,
    /// The interval, if there is one.
    pub range: Option<[f64; 2]>,
    /// Single values.
    pub values: Vec<f64>,
    /// Words in place of a picture, where nothing is known.
    pub words: String,
}

/// Rows of intervals.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct Intervals {
    /// What the axis shows.
    pub x: Axis,
    /// A place that is marked.
    pub mark: Option<f64>,
    /// The rows, the first on top.
    pub rows: Vec<Interval>,
}

impl Chart for Intervals {
    fn svg(&self) -> String {
        let values = self.rows.iter().flat_map(|row| {
            let range = row.range.into_iter().flatten();
            row.values.iter().copied().chain(row.mean).chain(range)
        });
        let values = values.chain(self.mark).filter(|value| value.is_finite());
        let height = self.rows.len().max(1) as f64 * ROW + 62.0;
        let frame = Frame {
            across: [NAMES, WIDTH - 16.0],
            down: [12.0, height - 46.0],
            x: room(values),
            y: [0.0, 1.0],
        };
        let mut document = frame.x_axis(paper(height), &self.x);
        if let Some(mark) = self.mark {
            let x = frame.across(mark);
            document = document.add(line([x, frame.down[0]], [x, frame.down[1]], INK));
        }
        for (index, row) in self.rows.iter().enumerate() {
            let y = frame.down[0] + (index as f64 + 0.5) * ROW;
            document = document.add(words(short(&row.name), 8.0, y + 4.5, "start"));
            if let Some([from, to]) = row.range
                && from.is_finite()
                && to.is_finite()
            {
                let ends = [from, to].map(|x| [frame.across(x), y]);
                let range = line(ends[0], ends[1], colour(row.place));
                let range = range.set("stroke-dasharray", dashes(row.place));
                document = document.add(range.set("stroke-width", 3));
            }
            let dot = |x: f64| Circle::new().set("cx", frame.across(x)).set("cy", y);
            if let Some(mean) = row.mean.filter(|mean| mean.is_finite()) {
                let dot = dot(mean).set("r", 5).set("stroke", colour(row.place));
                let inside = match has_own_colour(row.place) {
                    true => colour(row.place),
                    false => PAPER,
                };
                document = document.add(dot.set("fill", inside));
            } else if !row.words.is_empty() {
                document = document.add(words(row.words.as_str(), NAMES + 8.0, y + 4.5, "start"));
            }
            for value in row.values.iter().filter(|value| value.is_finite()) {
                let value = dot(*value).set("r", 2).set("fill", INK);
                document = document.add(value.set("fill-opacity", 0.7));
            }
        }
        document.to_string()
    }
}

/// A name without its middle where it is long: what arms differ in may stand at either end.
fn short(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    if letters.len() <= LONGEST {
        return name.to_string();
    }
    let end = &letters[letters.len() - LONGEST / 2..];
    let start = &letters[..LONGEST - 1 - end.len()];
    start.iter().chain(&['…']).chain(end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_are_drawn_alike() {
        let row = |place| Interval {
            place,
            mean: Some(1.0),
            range: Some([0.0, 2.0]),
            ..Interval::default()
        };
        let drawn = |place: usize| {
            let rows = vec![row(place)];
            Intervals {
                rows,
                ..Intervals::default()
            }
            .svg()
        };
        let all: Vec<String> = (0..25).map(drawn).collect();
        let different: std::collections::BTreeSet<&String> = all.iter().collect();
        assert_eq!(different.len(), 25);
    }

    #[test]
    fn long_names_keep_both_ends() {
        assert_eq!(short("hybrid-star"), "hybrid-star");
        let name = short("hybrid-star+lr=0.001+24layers");
        assert_eq!(name.chars().count(), LONGEST);
        assert!(
            name.starts_with("hybrid") && name.ends_with("+24layers"),
            "{name}"
        );
    }
}
