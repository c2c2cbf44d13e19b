//! Pictures and numbers as files of their own.

use std::fs;
use std::path::{Path, PathBuf};

use super::Report;
use super::error::ReportError;

/// Where to.
#[derive(Debug, Clone, Default)]
pub struct Export {
    /// The folder for tables as comma-separated values.
    pub csv: Option<PathBuf>,
    /// The folder for pictures as SVG.
    pub svg: Option<PathBuf>,
    /// The folder for pictures as PNG.
    pub png: Option<PathBuf>,
}

/// Writes a file for each figure of `report` into each folder that `to` names, and returns how many.
///
/// # Errors
/// When the file system refuses, or there is no font for a PNG.
pub fn export(report: &Report, to: &Export) -> Result<usize, ReportError> {
    let mut written = 0;
    let mut write = |dir: &Path, name: String, bytes: &[u8]| {
        fs::create_dir_all(dir).map_err(ReportError::io("create", dir))?;
        let path = dir.join(name);
        written += 1;
        fs::write(&path, bytes).map_err(ReportError::io("write", &path))
    };
    if let Some(dir) = &to.csv {
        for figure in report.figures() {
            write(
                dir,
                format!("{}.csv", figure.id),
                figure.table.csv().as_bytes(),
            )?;
        }
    }
    if let Some(dir) = &to.svg {
        for figure in report.figures() {
            write(dir, format!("{}.svg", figure.id), figure.svg.as_bytes())?;
        }
    }
    if let Some(dir) = &to.png {
        let fonts = png::Fonts::of_the_system()?;
        for figure in report.figures() {
            let png = fonts
                .png(&figure.svg)
                .map_err(|reason| ReportError::Drawing {
                    figure: figure.id.clone(),
                    reason,
                })?;
            write(dir, format!("{}.png", figure.id), &png)?;
        }
    }
    Ok(written)
}

#[cfg(feature = "png")]
#[path = "png.rs"]
mod png;

/// Of a build without the feature.
#[cfg(not(feature = "png"))]
mod png {
    use super::ReportError;

    pub(super) struct Fonts;

    impl Fonts {
        pub(super) fn of_the_system() -> Result<Self, ReportError> {
            Err(ReportError::NoPng)
        }

        pub(super) fn png(&self, _svg: &str) -> Result<Vec<u8>, String> {
            Err("this build has no PNG".to_string())
        }
    }
}
