//! Memory in words.

use core::fmt;

use super::Memory;

/// Bytes as people read them: `22.0 MiB`, `3.1 GiB`.
pub(crate) fn in_words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

impl fmt::Display for Memory {
    /// `407.0 MiB: weights 24.0 MiB, gradients 24.0 MiB, ..`, without what is nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.components().into_iter();
        let parts = parts.filter(|(_, bytes)| *bytes > 0);
        let parts = parts.map(|(name, bytes)| format!("{name} {}", in_words(bytes)));
        let parts: Vec<String> = parts.collect();
        write!(f, "{}: {}", in_words(self.total()), parts.join(", "))
    }
}
