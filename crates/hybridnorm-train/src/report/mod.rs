//! Reports: one HTML file for a run, a comparison or a probe, with every picture's numbers inside.
//!
//! The file needs nothing else: no network, no script, no second file. Pictures are SVG; the same pictures and
//! numbers can be exported as SVG, PNG and CSV files. A run in progress makes a report like a finished one.
//!
//! | part | what |
//! |---|---|
//! | [`Report`] | sections of figures, tables and words |
//! | [`Figure`] | a picture, what it shows in words, and the [`Table`] behind it |
//! | `chart` | the pictures: lines with bands, heat maps, intervals |
//! | `of_run`, `of_comparison`, `of_probe` | what there is to show of each |
//! | `page` | the HTML |
//! | `export` | files for papers |
//! | `kind` | what a directory holds, and what is near one that holds nothing |
//! | [`sparkline`] | a curve in a line of the terminal |

mod chart;
mod curves;
mod error;
mod export;
mod figure;
mod kind;
mod layer_figures;
mod log;
mod of_comparison;
mod of_probe;
mod of_run;
mod page;
#[cfg(feature = "png")]
mod png;
#[cfg(not(feature = "png"))]
#[path = "no_png.rs"]
mod png;
mod run_figures;
mod run_routers;
mod series;
mod spark;
mod table;

use std::path::{Path, PathBuf};

pub use error::ReportError;
pub use export::{Export, export};
pub use figure::Figure;
use kind::Kind;
pub use spark::sparkline;
pub use table::{Cell, Table};

use crate::aside;

/// The report's file name in the directory that it is about.
pub const REPORT: &str = "report.html";

/// What is to be shown.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// What it is about.
    pub title: String,
    /// The sentence that matters most, if there is one.
    pub answer: Option<String>,
    /// Its parts.
    pub sections: Vec<Section>,
}

/// A part of a report.
#[derive(Debug, Clone, Default)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// Paragraphs.
    pub words: Vec<String>,
    /// Tables that are shown as they are, each with its caption.
    pub tables: Vec<(String, Table)>,
    /// Pictures.
    pub figures: Vec<Figure>,
}

impl Report {
    /// Of the run, comparison or probe in `dir`.
    ///
    /// # Errors
    /// When there is none, its files cannot be read or understood, or a picture cannot be drawn.
    pub fn of(dir: &Path) -> Result<Self, ReportError> {
        match Kind::of(dir) {
            Some(Kind::Comparison) => of_comparison::report(dir),
            Some(Kind::Probe) => of_probe::report(dir),
            Some(Kind::Run) => of_run::report(dir),
            None => Err(kind::nothing(dir)),
        }
    }

    /// Every figure, in order.
    pub fn figures(&self) -> impl Iterator<Item = &Figure> {
        self.sections.iter().flat_map(|section| &section.figures)
    }

    /// A line for the terminal of every figure that is a number by step: its title, its curve, its last value.
    pub fn sparklines(&self) -> Vec<String> {
        let line = |figure: &Figure| {
            let table = &figure.table;
            let is_curve = table.columns.len() == 2 && table.columns.first()? == "step";
            let values = is_curve.then(|| table.rows.iter().filter_map(|row| row.get(1)));
            let values: Vec<f64> = values?
                .filter_map(|cell| match cell {
                    Cell::Number(value) => Some(*value),
                    _ => None,
                })
                .collect();
            let last = values.last()?;
            let curve = sparkline(&values, 40);
            Some(format!(
                "{:<40} {curve} {}",
                figure.title,
                series::short(*last)
            ))
        };
        self.figures().filter_map(line).collect()
    }

    /// The page.
    pub fn html(&self) -> String {
        page::html(self)
    }

    /// Writes the page to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, path: &Path) -> Result<(), ReportError> {
        aside::write(path, self.html()).map_err(ReportError::io("write", path))
    }
}

/// Writes `report.html` into `dir`, which it is about, and returns its path.
///
/// # Errors
/// As [`Report::of`] and [`Report::save`].
pub fn write(dir: &Path) -> Result<PathBuf, ReportError> {
    let path = dir.join(REPORT);
    Report::of(dir)?.save(&path)?;
    Ok(path)
}
