//! A corpus: documents in a fixed order, and the hash that names them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use walkdir::WalkDir;

use super::DataError;

/// One text that stands on its own: a file, or one line of a `.jsonl` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it comes from: a path relative to the corpus with `/` between parts, and `:LINE` in a `.jsonl` file.
    pub name: String,
    /// The text, never blank.
    pub text: String,
}

/// A part of the corpus that a reader would name: a file, or a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file relative to the corpus, or `NAME-VERSION` of a crate.
    pub name: String,
    /// UTF-8 bytes of text that the corpus takes from it.
    pub bytes: u64,
}

/// All the text of a run, in an order that depends on nothing but names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// The documents in order.
    pub documents: Vec<Document>,
    /// One line for people: what this corpus is.
    pub description: String,
    /// What it was read from, in order.
    pub sources: Vec<Source>,
    /// One line for each kind of thing that was left out, and why. Empty when nothing was.
    pub notes: Vec<String>,
    /// UTF-8 bytes of all documents.
    pub bytes: u64,
    /// BLAKE3 over the length and bytes of each name and text in order, in hexadecimal.
    pub hash: String,
}

impl Corpus {
    /// Reads a file, or a directory with everything below it.
    ///
    /// A `.txt` or `.md` file is one document; in a `.jsonl` file each line is one, its text in the field
    /// `text`. Inside a directory other extensions are left out, and counted in [`Corpus::notes`]. Links are
    /// followed, directories of earlier runs of this program are not entered. Files are ordered by their path relative to the directory, compared as bytes with `/`
    /// between parts, which is the same order on every platform. Blank documents and blank lines are dropped.
    ///
    /// # Errors
    ///
    /// A path that does not exist or cannot be read, a file of another kind, text that is not UTF-8, a line
    /// that is not a JSON object with a string `text`, or no text at all.
    pub fn from_path(path: &Path) -> Result<Self, DataError> {
        if !path.exists() {
            return Err(DataError::Missing {
                path: path.to_owned(),
            });
        }
        let (files, ignored) = list(path)?;
        let mut documents = Vec::new();
        let mut sources = Vec::new();
        let mut blank = 0usize;
        for File { name, path, format } in files {
            let text = read_utf8(&path)?;
            let mut read = match format {
                Format::Text => vec![Document {
                    name: name.clone(),
                    text,
                }],
                Format::JsonLines => read_json_lines(&path, &name, &text)?,
            };
            let all = read.len();
            read.retain(|document| !document.text.trim().is_empty());
            blank += all - read.len();
            if !read.is_empty() {
                let bytes = read.iter().map(|document| document.text.len() as u64).sum();
                sources.push(Source { name, bytes });
                documents.append(&mut read);
            }
        }
        if documents.is_empty() {
            return Err(DataError::Empty {
                path: path.to_owned(),
            });
        }
        let mut notes = Vec::new();
        if ignored > 0 {
            notes.push(format!(
                "left out files that are neither .txt, .md nor .jsonl: {ignored}"
            ));
        }
        if blank > 0 {
            notes.push(format!("left out blank documents: {blank}"));
        }
        let description = format!(
            "{} documents from {} files under {}",
            documents.len(),
            sources.len(),
            path.display()
        );
        Ok(Self::assemble(documents, description, sources, notes))
    }

    /// Counts and hashes `documents`.
    pub(super) fn assemble(
        documents: Vec<Document>,
        description: String,
        sources: Vec<Source>,
        notes: Vec<String>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut bytes = 0;
        for Document { name, text } in &documents {
            bytes += text.len() as u64;
            for part in [name, text] {
                // The length keeps ("ab", "c") and ("a", "bc") apart.
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
        }
        Self {
            documents,
            description,
            sources,
            notes,
            bytes,
            hash: hasher.finalize().to_hex().to_string(),
        }
    }
}

#[derive(Clone, Copy)]
enum Format {
    Text,
    JsonLines,
}

impl Format {
    fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "txt" | "md" => Some(Self::Text),
            "jsonl" => Some(Self::JsonLines),
            _ => None,
        }
    }
}

struct File {
    name: String,
    path: PathBuf,
    format: Format,
}

/// The files to read in order, and how many others a directory holds.
fn list(root: &Path) -> Result<(Vec<File>, usize), DataError> {
    if !root.is_dir() {
        let format = Format::of(root).ok_or_else(|| DataError::Unsupported {
            path: root.to_owned(),
        })?;
        let name = root
            .file_name()
            .unwrap_or(root.as_os_str())
            .to_string_lossy()
            .into_owned();
        let path = root.to_owned();
        return Ok((vec![File { name, path, format }], 0));
    }
    let mut files = Vec::new();
    let mut ignored = 0;
    let walk = WalkDir::new(root).follow_links(true).into_iter();
    for entry in walk.filter_entry(|entry| !is_run(entry.path())) {
        let entry = entry.map_err(|error| DataError::Read {
            path: error.path().unwrap_or(root).to_owned(),
            source: error.into(),
        })?;
        if !entry.file_type().is_file() {
            continue;
        }
        match Format::of(entry.path()) {
            Some(format) => files.push(File {
                name: relative_name(root, entry.path()),
                path: entry.into_path(),
                format,
            }),
            None => ignored += 1,
        }
    }
    files.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
    Ok((files, ignored))
}

/// Whether `dir` is a run of this program, whose logs are no text to learn from.
fn is_run(dir: &Path) -> bool {
    dir.join("config.toml").is_file() && dir.join("metrics.jsonl").is_file()
}

/// `path` below `root` with `/` between its parts on every platform.
pub(super) fn relative_name(root: &Path, path: &Path) -> String {
    let parts: Vec<_> = path
        .strip_prefix(root)
        .unwrap_or(path)
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    parts.join("/")
}

fn read_utf8(path: &Path) -> Result<String, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut text = String::from_utf8(bytes).map_err(|error| DataError::InvalidUtf8 {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    // A byte order mark belongs to the file, not to its text.
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

fn read_json_lines(path: &Path, name: &str, text: &str) -> Result<Vec<Document>, DataError> {
    #[derive(Deserialize)]
    struct Line {
        text: Option<String>,
    }
    let mut documents = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = index + 1;
        let parsed: Line = serde_json::from_str(line).map_err(|error| DataError::BadLine {
            path: path.to_owned(),
            line: number,
            message: error.to_string(),
        })?;
        let text = parsed.text.ok_or_else(|| DataError::MissingText {
            path: path.to_owned(),
            line: number,
        })?;
        documents.push(Document {
            name: format!("{name}:{number}"),
            text,
        });
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn directory(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        directory
    }

    #[test]
    fn a_directory_is_read_in_order_of_names() {
        let directory = directory(&[
            ("b.md", b"two"),
            ("a/z.TXT", b"one"),
            (
                "c.jsonl",
                b"{\"text\": \"three\", \"id\": 1}\n\n{\"text\": \"\"}\n{\"text\": \"four\"}\n",
            ),
            ("blank.txt", b" \n"),
            ("picture.png", &[0xff]),
        ]);
        let corpus = Corpus::from_path(directory.path()).unwrap();
        let documents: Vec<_> = corpus
            .documents
            .iter()
            .map(|d| (d.name.as_str(), d.text.as_str()))
            .collect();
        assert_eq!(
            documents,
            [
                ("a/z.TXT", "one"),
                ("b.md", "two"),
                ("c.jsonl:1", "three"),
                ("c.jsonl:4", "four"),
            ]
        );
        assert_eq!(corpus.bytes, 3 + 3 + 5 + 4);
        let sources: Vec<_> = corpus
            .sources
            .iter()
            .map(|s| (s.name.as_str(), s.bytes))
            .collect();
        assert_eq!(sources, [("a/z.TXT", 3), ("b.md", 3), ("c.jsonl", 9)]);
        assert_eq!(
            corpus.notes,
            [
                "left out files that are neither .txt, .md nor .jsonl: 1",
                "left out blank documents: 2"
            ]
        );
    }

    #[test]
    fn the_hash_is_of_names_and_texts_in_order() {
        let corpus = Corpus::from_path(directory(&[("a.txt", b"hi")]).path()).unwrap();
        let expected = blake3::hash(b"\x05\0\0\0\0\0\0\0a.txt\x02\0\0\0\0\0\0\0hi").to_hex();
        assert_eq!(corpus.hash, expected.as_str());
        let renamed = Corpus::from_path(directory(&[("b.txt", b"hi")]).path()).unwrap();
        assert_ne!(renamed.hash, corpus.hash);
        let edited = Corpus::from_path(directory(&[("a.txt", b"ho")]).path()).unwrap();
        assert_ne!(edited.hash, corpus.hash);
    }

    #[test]
    fn a_single_file_is_named_by_its_file_name() {
        let directory = directory(&[("deep/a.md", b"text"), ("deep/b.md", b"other")]);
        let corpus = Corpus::from_path(&directory.path().join("deep/a.md")).unwrap();
        assert_eq!(corpus.documents.len(), 1);
        assert_eq!(corpus.documents[0].name, "a.md");
    }

    #[rstest]
    #[case::not_utf8("a.txt", b"ab\xffc", "a.txt is not UTF-8 at byte 2")]
    #[case::not_json("a.jsonl", b"{\"text\": \"x\"}\nnonsense\n", "a.jsonl:2: expected")]
    #[case::not_a_string("a.jsonl", b"{\"text\": 3}", "a.jsonl:1: invalid type: integer")]
    #[case::no_text(
        "a.jsonl",
        b"{\"body\": \"x\"}",
        "a.jsonl:1: the object has no field `text`"
    )]
    #[case::blank("a.txt", b"\n \n", "no text found under")]
    #[case::kind("a.csv", b"text", "a.csv has an unsupported extension")]
    fn a_bad_file_is_refused_by_name(
        #[case] name: &str,
        #[case] bytes: &[u8],
        #[case] message: &str,
    ) {
        let directory = directory(&[(name, bytes)]);
        let error = Corpus::from_path(&directory.path().join(name)).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }

    #[test]
    fn a_missing_path_and_an_empty_directory_are_different_errors() {
        let directory = directory(&[]);
        let missing = Corpus::from_path(&directory.path().join("nowhere")).unwrap_err();
        assert!(matches!(missing, DataError::Missing { .. }), "{missing}");
        let empty = Corpus::from_path(directory.path()).unwrap_err();
        assert!(matches!(empty, DataError::Empty { .. }), "{empty}");
    }
}
