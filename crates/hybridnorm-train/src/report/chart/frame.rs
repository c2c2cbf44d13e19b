//! Axes around a picture.

use svg::Document;
use svg::node::element::Line;

use super::{GRID, INK, WIDTH, place, ticks, words};

/// At most about so many marks stand on a vertical axis, and half as many at least.
const MARKS: usize = 9;

/// An axis.
#[derive(Debug, Clone, Default)]
pub(in crate::report) struct Axis {
    /// What it shows.
    pub label: String,
    /// Whether equal steps are equal factors.
    pub log: bool,
}

impl Axis {
    pub(in crate::report) fn new(label: &str) -> Self {
        Self {
            label: label.to_string(),
            log: false,
        }
    }

    pub(in crate::report) fn log(label: &str) -> Self {
        Self {
            label: label.to_string(),
            log: true,
        }
    }

    /// Where a value stands on the axis; `None` where it can't.
    pub(super) fn of(&self, value: f64) -> Option<f64> {
        let value = if self.log { value.log10() } else { value };
        value.is_finite().then_some(value)
    }

    /// What a place on the axis is called.
    pub(super) fn text(&self, at: f64) -> String {
        ticks::text(if self.log { 10f64.powf(at) } else { at })
    }

    /// Pixels that the marks of a vertical axis and its label take.
    pub(super) fn room(&self, range: [f64; 2]) -> f64 {
        let marks = self.ticks(range, MARKS).into_iter();
        let longest = marks.map(|mark| self.text(mark).chars().count()).max();
        // A digit is eight pixels wide at most; the label takes twenty-two.
        34.0 + 8.0 * longest.unwrap_or(0) as f64
    }

    /// Marks within a range, but for those that the room around it puts behind the largest number.
    fn ticks(&self, [low, high]: [f64; 2], about: usize) -> Vec<f64> {
        let mut marks = match self.log {
            true => ticks::logarithmic(low, high, about),
            false => ticks::linear(low, high, about),
        };
        marks.retain(|mark| !self.log || 10f64.powf(*mark).is_finite());
        marks
    }
}

/// A rectangle in which two ranges are drawn.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Frame {
    /// Left and right edge.
    pub across: [f64; 2],
    /// Upper and lower edge.
    pub down: [f64; 2],
    /// What stands at the left and right edge.
    pub x: [f64; 2],
    /// What stands at the lower and upper edge.
    pub y: [f64; 2],
}

impl Frame {
    /// The pixel across where `x` stands.
    pub(super) fn across(&self, x: f64) -> f64 {
        let share = (x - self.x[0]) / (self.x[1] - self.x[0]);
        place(self.across[0] + share * (self.across[1] - self.across[0]))
    }

    /// The pixel down where `y` stands.
    pub(super) fn down(&self, y: f64) -> f64 {
        let share = (y - self.y[0]) / (self.y[1] - self.y[0]);
        place(self.down[1] - share * (self.down[1] - self.down[0]))
    }

    /// Marks and grid of the horizontal axis, and its label.
    pub(super) fn x_axis(&self, mut document: Document, axis: &Axis) -> Document {
        let [top, bottom] = self.down;
        for mark in axis.ticks(self.x, 5) {
            let x = self.across(mark);
            document = document.add(line([x, top], [x, bottom], GRID)).add(words(
                axis.text(mark),
                x,
                bottom + 17.0,
                "middle",
            ));
        }
        // Of a long label, no more than the picture has room for stands right of the middle; a letter is seven pixels wide at most.
        let half = 3.5 * axis.label.chars().count() as f64;
        let middle = (self.across[0] + self.across[1]) / 2.0;
        let middle = middle.min(WIDTH - half).max(middle.min(half));
        document
            .add(line(
                [self.across[0], bottom],
                [self.across[1], bottom],
                INK,
            ))
            .add(words(axis.label.as_str(), middle, bottom + 35.0, "middle"))
    }

    /// Marks and grid of the vertical axis, and its label.
    pub(super) fn y_axis(&self, mut document: Document, axis: &Axis) -> Document {
        let [left, right] = self.across;
        for mark in axis.ticks(self.y, MARKS) {
            let y = self.down(mark);
            document = document.add(line([left, y], [right, y], GRID)).add(words(
                axis.text(mark),
                left - 6.0,
                y + 4.5,
                "end",
            ));
        }
        self.y_label(document, &axis.label)
    }

    /// The vertical axis without marks.
    pub(super) fn y_label(&self, document: Document, label: &str) -> Document {
        let middle = place((self.down[0] + self.down[1]) / 2.0);
        let label = words(label, 0.0, 0.0, "middle");
        document
            .add(line(
                [self.across[0], self.down[0]],
                [self.across[0], self.down[1]],
                INK,
            ))
            .add(label.set("transform", format!("translate(15 {middle}) rotate(-90)")))
    }
}

/// A straight line.
pub(super) fn line(from: [f64; 2], to: [f64; 2], colour: &str) -> Line {
    Line::new()
        .set("x1", place(from[0]))
        .set("y1", place(from[1]))
        .set("x2", place(to[0]))
        .set("y2", place(to[1]))
        .set("stroke", colour)
}

/// A range that is not empty, with a little room around.
pub(super) fn room(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let [low, high] = bounds(values);
    match (low.is_finite() && high.is_finite(), high - low) {
        (false, _) => [0.0, 1.0],
        (true, size) if size > 0.0 => [low - 0.04 * size, high + 0.04 * size],
        (true, _) => {
            let around = if low == 0.0 { 1.0 } else { 0.05 * low.abs() };
            [low - around, high + around]
        }
    }
}

/// The lowest and the highest.
pub(super) fn bounds(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
        [low.min(value), high.max(value)]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_range_is_empty() {
        for values in [&[][..], &[0.0], &[3.0, 3.0], &[1.0, 2.0]] {
            let [low, high] = room(values.iter().copied());
            assert!(low < high, "{values:?}");
        }
    }

    #[test]
    fn edges_are_where_they_should_be() {
        let frame = Frame {
            across: [10.0, 110.0],
            down: [0.0, 50.0],
            x: [0.0, 1.0],
            y: [-1.0, 1.0],
        };
        assert_eq!((frame.across(0.0), frame.across(1.0)), (10.0, 110.0));
        assert_eq!((frame.down(-1.0), frame.down(1.0)), (50.0, 0.0));
    }
}
