//! A corpus: documents in a fixed order, and the hash that names them.

use std::path::Path;
use std::sync::Arc;

use super::DataError;
use super::input::{Files, Format, READABLE, Reading, Records};

/// UTF-8 bytes that a document read whole into memory may have: 1 GiB.
const MAX_DOCUMENT_BYTES: usize = 1 << 30;

/// One text that stands on its own: a file, one line of a `.jsonl` file, or one row of a `.parquet` file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Where it comes from: a path relative to the corpus with `/` between parts, and `:LINE` or `:ROW` from 1
    /// in a file of many.
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
    /// Reads a file, a directory with everything below it, or the files that match a pattern.
    ///
    /// A `.txt` or `.md` file is one document; in a `.jsonl` file each line is one, its text in the field `text`, in a
    /// `.parquet` file each row, its text in the column `text`. All but Parquet may be packed as `.gz` or `.zst`. Inside
    /// a directory other extensions are left out, and counted in [`Corpus::notes`]. [`Files::find`] says in which order
    /// files are read. Blank documents and blank lines are dropped.
    ///
    /// # Errors
    ///
    /// A path that does not exist or cannot be read, a file of another kind, text that is not UTF-8, a document of more
    /// than 1 GiB, a line that is not a JSON object with a string `text`, or no text at all.
    pub fn from_path(path: &Path) -> Result<Self, DataError> {
        let Files { files, ignored } = Files::find(&[path.to_owned()])?;
        let reading = Reading {
            skip: 0,
            max_document_bytes: MAX_DOCUMENT_BYTES,
            bytes_read: Arc::default(),
        };
        let mut documents = Vec::new();
        let mut sources = Vec::new();
        let mut blank = 0usize;
        for file in files {
            let mut bytes = 0;
            for record in Records::open(&file, &reading)? {
                let record = record?;
                if record.text.trim().is_empty() {
                    blank += 1;
                    continue;
                }
                bytes += record.text.len() as u64;
                documents.push(Document {
                    name: match file.format {
                        Format::Text => file.name.clone(),
                        _ => format!("{}:{}", file.name, record.number + 1),
                    },
                    text: record.text,
                });
            }
            if bytes > 0 {
                let name = file.name;
                sources.push(Source { name, bytes });
            }
        }
        if documents.is_empty() {
            return Err(DataError::Empty {
                path: path.to_owned(),
            });
        }
        let mut notes = Vec::new();
        if ignored > 0 {
            notes.push(format!("left out files that are not {READABLE}: {ignored}"));
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

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
                "left out files that are not .txt, .md or .jsonl, each also with .gz or .zst, or .parquet: 1",
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
    #[case::tokens("a.npy", b"text", "[[data.sources]]")]
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

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_files_hold_the_same_documents() {
        let lines: &[u8] = b"{\"text\": \"three\"}\n{\"text\": \"four\"}\n";
        let (first, second) = lines.split_at(25);
        let plain = directory(&[("a.txt", b"one"), ("b.jsonl", lines)]);
        let packed = directory(&[
            ("a.txt.gz", &gzip(b"one")),
            // Two members, two frames: both formats allow to append.
            ("b.jsonl.gz", &[gzip(first), gzip(second)].concat()),
        ]);
        let frames = [first, second].map(|part| zstd::encode_all(part, 3).unwrap());
        let zst = directory(&[
            ("a.txt.zst", &zstd::encode_all(&b"one"[..], 3).unwrap()),
            ("b.jsonl.zst", &frames.concat()),
        ]);
        let texts = |directory: &tempfile::TempDir| -> Vec<String> {
            let corpus = Corpus::from_path(directory.path()).unwrap();
            corpus.documents.into_iter().map(|d| d.text).collect()
        };
        assert_eq!(texts(&plain), ["one", "three", "four"]);
        assert_eq!(texts(&packed), texts(&plain));
        assert_eq!(texts(&zst), texts(&plain));
    }
}
