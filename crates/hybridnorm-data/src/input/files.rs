//! Which files a path, a directory or a pattern stands for, and in which order they are read.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{Compression, DataError, Format, READABLE};

/// A file that a reader takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputFile {
    /// Relative to the directory it was found in, `/` between parts; the file name of a file given by itself.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// How it is divided into documents.
    pub format: Format,
    /// What it is wrapped in.
    pub compression: Compression,
}

/// The files to read, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Path after path as they were given; below a path by name, compared as bytes, which is the same order on
    /// every platform.
    pub files: Vec<InputFile>,
    /// Files in directories, or matched by patterns, that no reader takes.
    pub ignored: usize,
}

impl Files {
    /// What stands at `paths`: files, directories with everything below them, and patterns such as
    /// `corpus/**/*.jsonl.zst`. A path that exists is never a pattern. Links are followed; directories of earlier runs
    /// of this program and folders it has prepared are not entered.
    ///
    /// # Errors
    ///
    /// A path does not exist, a file has an extension that no reader takes, a pattern is malformed or matches nothing,
    /// or a directory cannot be listed.
    pub fn find(paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut all = Self {
            files: Vec::new(),
            ignored: 0,
        };
        for path in paths {
            let mut found = Self::at(path)?;
            all.files.append(&mut found.files);
            all.ignored += found.ignored;
        }
        Ok(all)
    }

    fn at(path: &Path) -> Result<Self, DataError> {
        if path.is_dir() {
            return Self::below(path);
        }
        if path.exists() {
            let (format, compression) = kind(path).ok_or_else(|| DataError::Unsupported {
                path: path.to_owned(),
            })?;
            let name = path.file_name().unwrap_or(path.as_os_str());
            return Ok(Self {
                files: vec![InputFile {
                    name: name.to_string_lossy().into_owned(),
                    path: path.to_owned(),
                    format,
                    compression,
                }],
                ignored: 0,
            });
        }
        match path.to_str() {
            Some(pattern) if pattern.contains(['*', '?', '[']) => Self::matching(pattern),
            _ => Err(DataError::Missing {
                path: path.to_owned(),
            }),
        }
    }

    fn below(root: &Path) -> Result<Self, DataError> {
        let walk = WalkDir::new(root).follow_links(true).into_iter();
        let entries = walk.filter_entry(|entry| !is_ours(entry.path()));
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| DataError::Read {
                path: error.path().unwrap_or(root).to_owned(),
                source: error.into(),
            })?;
            if entry.file_type().is_file() {
                found.push(entry.into_path());
            }
        }
        Ok(Self::sorted(root, found))
    }

    fn matching(pattern: &str) -> Result<Self, DataError> {
        let found = files_matching(pattern)?;
        let found = Self::sorted(Path::new(""), found);
        if found.files.is_empty() {
            return Err(DataError::BadPattern {
                pattern: pattern.to_owned(),
                message: format!("no file of it matches that is {READABLE}"),
            });
        }
        Ok(found)
    }

    fn sorted(root: &Path, paths: Vec<PathBuf>) -> Self {
        let mut files = Vec::new();
        let mut ignored = 0;
        for path in paths {
            match kind(&path) {
                Some((format, compression)) => files.push(InputFile {
                    name: relative_name(root, &path),
                    path,
                    format,
                    compression,
                }),
                None => ignored += 1,
            }
        }
        files.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        Self { files, ignored }
    }
}

/// What the name of a file says about its content; upper and lower case are the same.
fn kind(path: &Path) -> Option<(Format, Compression)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else {
        (name.as_str(), Compression::None)
    };
    let format = match (Path::new(stem).extension()?.to_str()?, compression) {
        ("txt" | "md", _) => Format::Text,
        ("jsonl", _) => Format::JsonLines,
        ("parquet", Compression::None) => Format::Parquet,
        _ => return None,
    };
    Some((format, compression))
}

/// Whether `dir` is a run or a prepared folder of this program, whose files are no text to learn from.
fn is_ours(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    has("config.toml") && has("metrics.jsonl") || has("index.json") || has("progress.json")
}

/// `path` below `root` with `/` between its parts on every platform.
pub(crate) fn relative_name(root: &Path, path: &Path) -> String {
    let parts: Vec<_> = path
        .strip_prefix(root)
        .unwrap_or(path)
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    parts.join("/")
}

/// The files, not the directories, that `pattern` matches.
pub(crate) fn files_matching(pattern: &str) -> Result<Vec<PathBuf>, DataError> {
    let matches = glob::glob(pattern).map_err(|error| DataError::BadPattern {
        pattern: pattern.to_owned(),
        message: error.to_string(),
    })?;
    let mut found = Vec::new();
    for path in matches {
        let path = path.map_err(|error| DataError::Read {
            path: error.path().to_owned(),
            source: error.into(),
        })?;
        if path.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a.txt", Some((Format::Text, Compression::None)))]
    #[case("A.MD.GZ", Some((Format::Text, Compression::Gzip)))]
    #[case("a.b.jsonl.zst", Some((Format::JsonLines, Compression::Zstd)))]
    #[case("a.parquet", Some((Format::Parquet, Compression::None)))]
    #[case("a.parquet.gz", None)]
    #[case("a.gz", None)]
    #[case("txt", None)]
    #[case(".txt", None)]
    #[case("a.csv", None)]
    fn the_name_says_what_a_file_is(
        #[case] name: &str,
        #[case] expected: Option<(Format, Compression)>,
    ) {
        assert_eq!(kind(Path::new(name)), expected);
    }

    fn directory(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        }
        directory
    }

    fn names(files: &Files) -> Vec<&str> {
        files.files.iter().map(|file| file.name.as_str()).collect()
    }

    #[test]
    fn paths_are_read_in_the_order_given_and_directories_by_name() {
        let dir = directory(&["b/2.txt", "b/10.txt", "b/x.png", "a.jsonl", "b-.md"]);
        let at = |name: &str| dir.path().join(name);
        let files = Files::find(&[at("b"), at("a.jsonl")]).unwrap();
        assert_eq!(names(&files), ["10.txt", "2.txt", "a.jsonl"]);
        assert_eq!(files.ignored, 1);
        // As bytes, `-` comes before `/`.
        let files = Files::find(&[dir.path().to_owned()]).unwrap();
        assert_eq!(names(&files), ["a.jsonl", "b-.md", "b/10.txt", "b/2.txt"]);
    }

    #[test]
    fn a_pattern_matches_files_below_and_a_literal_path_comes_first() {
        let dir = directory(&["x/a.txt", "x/y/b.txt", "x/c.png", "[1].txt", "1.md"]);
        let at = |name: &str| vec![dir.path().join(name)];
        let found = Files::find(&at("**/*.txt")).unwrap();
        assert_eq!(found.files.len(), 3);
        let found = Files::find(&at("[1].txt")).unwrap();
        assert_eq!(names(&found), ["[1].txt"]);
        let error = Files::find(&at("*.jsonl")).unwrap_err();
        assert!(matches!(error, DataError::BadPattern { .. }), "{error}");
        let error = Files::find(&at("a[.txt")).unwrap_err();
        assert!(matches!(error, DataError::BadPattern { .. }), "{error}");
    }

    #[test]
    fn runs_and_prepared_folders_are_not_entered() {
        let dir = directory(&[
            "a.txt",
            "run/config.toml",
            "run/metrics.jsonl",
            "p/index.json",
            "p/b.txt",
        ]);
        let found = Files::find(&[dir.path().to_owned()]).unwrap();
        assert_eq!(names(&found), ["a.txt"]);
    }
}
