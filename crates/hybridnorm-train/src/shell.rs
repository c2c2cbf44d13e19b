//! Paths in commands and lines of Python that the program tells its user to give.

use std::path::Path;

/// `path` as a word of a shell: in quotes where it holds what a shell would read otherwise.
pub(crate) fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    // Only a NUL cannot be quoted, and no path holds one.
    let quoted = shlex::try_quote(&text).map(String::from);
    quoted.unwrap_or_else(|_| text.to_string())
}

/// `path` as a string of Python, quotes included. A string of JSON is one.
pub(crate) fn python(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_of_python_says_the_path() {
        assert_eq!(python(Path::new("a b/naïve")), r#""a b/naïve""#);
        assert_eq!(python(Path::new(r#"c:\x"y"#)), r#""c:\\x\"y""#);
    }

    #[test]
    fn a_word_is_read_back_as_the_path() {
        for path in ["runs/demo-2", "runs/a b", "it's", "$HOME", "naïve", ""] {
            let word = word(Path::new(path));
            assert_eq!(shlex::split(&word), Some(vec![path.to_string()]), "{word}");
        }
        assert_eq!(word(Path::new("runs/demo-2")), "runs/demo-2");
    }
}
