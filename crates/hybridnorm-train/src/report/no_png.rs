//! `png` in a build without the feature: what to do about it.

use super::ReportError;

/// Cannot be had.
pub(super) enum Fonts {}

impl Fonts {
    pub(super) fn of_the_system() -> Result<Self, ReportError> {
        Err(ReportError::NoPng)
    }

    pub(super) fn png(&self, _svg: &str) -> Result<Vec<u8>, String> {
        match *self {}
    }
}
