//! A figure for each layer over time, as colours.

use svg::node::element::Rectangle;

use super::frame::{Axis, Frame, bounds};
use super::{Chart, HEIGHT, WIDTH, paper, ticks, words};

/// Most cells in a row: more could not be told apart.
const COLUMNS: usize = 120;
/// Most names of rows and of columns.
const NAMES: usize = 8;
/// Steps of the scale at the right.
const SCALE: usize = 40;

/// Rows of colours.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct HeatMap {
    /// What the horizontal axis shows.
    pub x_label: String,
    /// What the vertical axis shows.
    pub y_label: String,
    /// The place of each column.
    pub x: Vec<f64>,
    /// The name of each row, the lowest first.
    pub rows: Vec<String>,
    /// A value for each row and column, where it is known.
    pub cells: Vec<Vec<Option<f64>>>,
    /// Whether equal steps of colour are equal factors.
    pub log: bool,
}

impl HeatMap {
    /// The mean of the known cells of a row from column `from` to before `to`.
    fn mean(&self, axis: &Axis, row: usize, from: usize, to: usize) -> Option<f64> {
        let cells = self.cells.get(row)?.get(from..to)?;
        let known = cells.iter().flatten().filter_map(|value| axis.of(*value));
        let known: Vec<f64> = known.collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }
}

impl Chart for HeatMap {
    fn svg(&self) -> String {
        let axis = Axis {
            label: String::new(),
            log: self.log,
        };
        let (columns, rows) = (self.x.len().clamp(1, COLUMNS), self.rows.len().max(1));
        let start = |column: usize| column * self.x.len() / columns;
        let mut cells = Vec::new();
        for row in 0..rows {
            for column in 0..columns {
                let mean = self.mean(&axis, row, start(column), start(column + 1));
                cells.extend(mean.map(|mean| (row, column, mean)));
            }
        }
        let [low, high] = bounds(cells.iter().map(|(_, _, value)| *value));
        let share = |value: f64| match high > low {
            true => (value - low) / (high - low),
            false => 0.5,
        };
        let frame = Frame {
            across: [52.0, WIDTH - 82.0],
            down: [12.0, HEIGHT - 46.0],
            x: [0.0, columns as f64],
            y: [0.0, rows as f64],
        };
        let mut document = paper(HEIGHT);
        let fill = |at: [f64; 2], to: [f64; 2], share: f64| {
            let cell = Rectangle::new().set("x", at[0]).set("y", at[1]);
            // A little more than its size, so that no paper shows between two of them.
            let cell = cell
                .set("width", to[0] - at[0] + 0.4)
                .set("height", to[1] - at[1] + 0.4);
            cell.set("fill", viridis(share))
        };
        for (row, column, value) in &cells {
            let (x, y) = (*column as f64, *row as f64);
            let at = [frame.across(x), frame.down(y + 1.0)];
            let to = [frame.across(x + 1.0), frame.down(y)];
            document = document.add(fill(at, to, share(*value)));
        }
        document = frame.y_label(document, &self.y_label);
        for row in (0..self.rows.len()).step_by(rows.div_ceil(NAMES)) {
            let y = frame.down(row as f64 + 0.5);
            document = document.add(words(self.rows[row].as_str(), 46.0, y + 4.5, "end"));
        }
        for column in (0..columns).step_by(columns.div_ceil(5)) {
            let Some(value) = self.x.get(start(column)) else {
                continue;
            };
            let x = frame.across(column as f64 + 0.5);
            document = document.add(words(
                ticks::text(*value),
                x,
                frame.down[1] + 17.0,
                "middle",
            ));
        }
        let middle = (frame.across[0] + frame.across[1]) / 2.0;
        document = document.add(words(
            self.x_label.as_str(),
            middle,
            frame.down[1] + 35.0,
            "middle",
        ));
        if cells.is_empty() {
            return document.to_string();
        }
        let left = WIDTH - 70.0;
        let edge = |step: usize| {
            frame.down[1] - step as f64 * (frame.down[1] - frame.down[0]) / SCALE as f64
        };
        for step in 0..SCALE {
            let colour = (step as f64 + 0.5) / SCALE as f64;
            document = document.add(fill(
                [left, edge(step + 1)],
                [left + 13.0, edge(step)],
                colour,
            ));
        }
        for step in [0, SCALE / 2, SCALE] {
            let value = low + (high - low) * step as f64 / SCALE as f64;
            document = document.add(words(
                axis.text(value),
                left + 18.0,
                edge(step) + 4.5,
                "start",
            ));
        }
        document.to_string()
    }
}

/// Colours that grow lighter evenly, between eight of matplotlib's viridis at equal distances.
fn viridis(share: f64) -> String {
    const AT: [[u8; 3]; 8] = [
        [68, 1, 84],
        [70, 50, 127],
        [54, 92, 141],
        [39, 127, 142],
        [31, 161, 135],
        [74, 194, 109],
        [159, 218, 58],
        [253, 231, 37],
    ];
    let place = share.clamp(0.0, 1.0) * (AT.len() - 1) as f64;
    let below = (place as usize).min(AT.len() - 2);
    let part = place - below as f64;
    let mix = |channel: usize| {
        let (a, b) = (
            f64::from(AT[below][channel]),
            f64::from(AT[below + 1][channel]),
        );
        (a + part * (b - a)).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_with_gaps_and_many_columns_are_drawn() {
        let map = |columns: usize, value: f64| HeatMap {
            x: (0..columns).map(|x| x as f64).collect(),
            rows: vec!["0".to_string(), "1".to_string()],
            cells: vec![vec![Some(value); columns], vec![None; columns]],
            log: true,
            ..HeatMap::default()
        };
        for (columns, value) in [(0, 1.0), (1, 1.0), (1000, 2.0), (3, f64::NAN), (3, 0.0)] {
            let svg = map(columns, value).svg();
            assert!(svg.ends_with("</svg>") && !svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn the_ends_of_the_scale_are_viridis() {
        assert_eq!(viridis(0.0), "#440154");
        assert_eq!(viridis(1.0), "#fde725");
    }
}
