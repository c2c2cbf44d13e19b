//! Pictures and numbers as files of their own.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ReportError;
use super::{Report, png};

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
/// When the file system refuses, a picture cannot be drawn, or this build or system has no PNG or no font for one.
pub fn export(report: &Report, to: &Export) -> Result<usize, ReportError> {
    // What this build or this system lacks is said before anything is written.
    let fonts = to.png.as_ref().map(|_| png::Fonts::of_the_system());
    let fonts = fonts.transpose()?;
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
    if let (Some(dir), Some(fonts)) = (&to.png, fonts) {
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
