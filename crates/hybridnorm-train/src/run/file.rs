//! A run's configuration, as a file holds it.

use super::RunConfig;

/// What the reader of TOML calls numbers, and what its user does.
const PLAINER: [(&str, &str); 4] = [
    ("expected u64", "expected a whole number of at least 0"),
    ("expected usize", "expected a whole number of at least 0"),
    ("expected u32", "expected a whole number of at least 0"),
    ("expected f64", "expected a number"),
];

/// Why a text is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadConfig {
    /// The line, counted from 1, where it is known.
    pub line: Option<usize>,
    /// What is wrong, on one line. Without the line that is wrong, however long that is.
    pub reason: String,
}

impl RunConfig {
    /// Reads a configuration from TOML; [`validate`](Self::validate) it then.
    ///
    /// # Errors
    /// When it is no TOML, a field is unknown, missing or of another type: see [`BadConfig`].
    pub fn from_toml(text: &str) -> Result<Self, BadConfig> {
        toml::from_str(text).map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let reason: Vec<&str> = error.message().split_whitespace().collect();
            BadConfig {
                line: before.map(|before| before.matches('\n').count() + 1),
                reason: PLAINER
                    .iter()
                    .fold(reason.join(" "), |text, (theirs, ours)| {
                        text.replace(theirs, ours)
                    }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (text, line, word) in [
            (
                "[training]\nsteps = 1e3\n",
                2,
                "`1000.0`, expected a whole number",
            ),
            (
                "[training]\n\nsteps = -3\n",
                3,
                "`-3`, expected a whole number",
            ),
            (
                "[schedule]\nlr = \"high\"\n",
                2,
                "\"high\", expected a number",
            ),
            ("[train]\n", 1, "unknown field `train`"),
            ("[training]\nsteps = 3\nsteps = 4\n", 3, "duplicate key"),
        ] {
            let bad = RunConfig::from_toml(text).unwrap_err();
            assert_eq!(bad.line, Some(line), "{bad:?}");
            assert!(bad.reason.contains(word), "{bad:?}");
        }
    }
}
