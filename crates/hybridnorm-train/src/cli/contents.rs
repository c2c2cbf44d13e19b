//! What a command leaves behind, at the end of its output.

use core::fmt;
use std::io::{self, Write};
use std::path::Path;

use crate::report;

/// A directory, and what is in it.
pub(super) struct Contents<'a> {
    /// The directory.
    pub dir: &'a Path,
    /// Names of files and folders, each with what it is.
    pub files: &'a [(&'a str, &'a str)],
}

impl fmt::Display for Contents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.dir.display())?;
        for (name, what) in self.files {
            writeln!(f, "    {name:<16}{what}")?;
        }
        Ok(())
    }
}

/// Writes the page of what `dir` holds. Where that fails all else is done and saved, and the page can be drawn again: a warning and no error.
pub(super) fn draw(dir: &Path) {
    if let Err(error) = report::write(dir) {
        // Standard error may be gone.
        let _ = writeln!(io::stderr(), "warning: no report: {error}");
    }
}
