//! What a command leaves behind, at the end of its output.

use core::fmt;
use std::path::Path;

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
