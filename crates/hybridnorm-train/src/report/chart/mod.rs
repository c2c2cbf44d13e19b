//! The pictures, put together with the `svg` crate.
//!
//! Ink, grid and paper are drawn in three colours of their own, which the page's style sheet replaces in the dark; the colours of
//! curves stand out on either paper.

mod frame;
mod heat;
mod intervals;
mod lines;
mod ticks;

use svg::Document;
use svg::node::element::{Rectangle, Text};

pub(super) use frame::Axis;
pub(super) use heat::HeatMap;
pub(super) use intervals::{Interval, Intervals};
pub(super) use lines::{Lines, Series};

/// Width of every picture, in pixels where a page does not scale it: readable on a phone.
const WIDTH: f64 = 480.0;
/// Height of one, without its legend.
const HEIGHT: f64 = 280.0;
/// Height of a legend's line.
const LEGEND: f64 = 18.0;

/// Text and axes.
const INK: &str = "#22272e";
/// Lines behind curves.
const GRID: &str = "#dde1e6";
/// What is behind all.
const PAPER: &str = "#fdfeff";
/// Curves: mid tones, told apart by most who do not see all colours (after Okabe and Ito).
const COLOURS: [&str; 10] = [
    "#0072b2", "#d55e00", "#009e73", "#b85f95", "#b88a00", "#3b9cd9", "#8c5a3c", "#7a68c8",
    "#7d848c", "#5f8a1e",
];

/// A picture.
pub(super) trait Chart {
    /// Draws it: `<svg>…</svg>`.
    fn svg(&self) -> String;
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// Whether no one before this place has its colour.
fn has_own_colour(index: usize) -> bool {
    index < COLOURS.len()
}

/// How a curve is dashed whose colour another one has already.
fn dashes(index: usize) -> &'static str {
    match index / COLOURS.len() {
        0 => "none",
        1 => "5 2",
        _ => "2 2",
    }
}

/// Paper of this height.
fn paper(height: f64) -> Document {
    let sheet = Rectangle::new().set("width", WIDTH).set("height", height);
    Document::new()
        .set("viewBox", (0, 0, WIDTH as i32, height as i32))
        .set("width", WIDTH)
        .set("height", height)
        .set("font-family", "sans-serif")
        .set("font-size", 13)
        .add(sheet.set("fill", PAPER))
}

/// Words that begin, end or are centred (`start`, `end`, `middle`) at a place.
fn words(text: impl Into<String>, x: f64, y: f64, anchor: &str) -> Text {
    Text::new(text)
        .set("x", place(x))
        .set("y", place(y))
        .set("text-anchor", anchor)
        .set("fill", INK)
}

/// A coordinate: a tenth of a pixel is enough.
fn place(at: f64) -> f64 {
    (at * 10.0).round() / 10.0
}

/// The names of curves, each with its colour, in rows from `top` on.
fn legend(mut document: Document, top: f64, names: &[&str]) -> Document {
    let columns = legend_columns(names);
    let width = WIDTH / columns as f64;
    for (index, name) in names.iter().enumerate() {
        let x = (index % columns) as f64 * width + 10.0;
        let y = top + (index / columns) as f64 * LEGEND;
        let swatch = frame::line([x, y + 8.0], [x + 14.0, y + 8.0], colour(index));
        let swatch = swatch.set("stroke-width", 6);
        document = document
            .add(swatch.set("stroke-dasharray", dashes(index)))
            .add(words(*name, x + 20.0, y + 12.5, "start"));
    }
    document
}

fn legend_height(names: &[&str]) -> f64 {
    match names.len() {
        0 | 1 => 0.0,
        several => several.div_ceil(legend_columns(names)) as f64 * LEGEND + 6.0,
    }
}

/// As many columns as the longest name leaves room for.
fn legend_columns(names: &[&str]) -> usize {
    let longest = names.iter().map(|name| name.chars().count()).max();
    let needed = 40 + 7 * longest.unwrap_or(1);
    (WIDTH as usize / needed).clamp(1, 4)
}
