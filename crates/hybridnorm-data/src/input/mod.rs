//! Text on disk, one document at a time, in memory that no file can exceed.

mod files;
mod lines;
mod open;
mod parquet;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::Deserialize;

use super::DataError;
pub use files::{Files, InputFile};
pub(super) use files::{files_matching, relative_name};
use lines::Lines;
use open::open;
use parquet::Rows;

/// What readers take, for messages.
pub(super) const READABLE: &str = ".txt, .md or .jsonl, each also with .gz or .zst, or .parquet";
/// A byte order mark belongs to the file, not to its text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// How the text of a file is divided into documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The file is one document: `.txt`, `.md`.
    Text,
    /// Each line is a JSON object with a string `text`: `.jsonl`.
    JsonLines,
    /// Each row has a string column `text`: `.parquet`.
    Parquet,
}

/// What the bytes of a file are wrapped in. Parquet compresses its pages itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// `.gz`, of one or several members.
    Gzip,
    /// `.zst`, of one or several frames.
    Zstd,
}

/// A document where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Line or row from 0; 0 in a file that is one document.
    pub number: u64,
    /// The text, which may be blank.
    pub text: String,
}

/// How a file is read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Lines or rows to pass over.
    pub skip: u64,
    /// UTF-8 bytes that no document, and no line it stands in, may exceed.
    pub max_document_bytes: usize,
    /// Raised by the bytes that are read from disk, for a display of progress.
    pub bytes_read: Arc<AtomicU64>,
}

/// The documents of one file in order. It ends after the first error.
pub struct Records {
    path: PathBuf,
    max_bytes: usize,
    kind: Kind,
}

enum Kind {
    Text(Option<Box<dyn Read + Send>>),
    JsonLines(Lines),
    Parquet(Box<Rows>),
    Over,
}

impl Records {
    /// Opens `file` and passes over what `reading` says.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, is damaged in what is passed over, or is a Parquet file without a string column
    /// `text`.
    pub fn open(file: &InputFile, reading: &Reading) -> Result<Self, DataError> {
        let path = file.path.clone();
        let max_bytes = reading.max_document_bytes;
        let kind = match file.format {
            Format::Text if reading.skip > 0 => Kind::Over,
            Format::Text => Kind::Text(Some(Box::new(open(file, &reading.bytes_read)?))),
            Format::JsonLines => {
                let source = open(file, &reading.bytes_read)?;
                let mut lines = Lines::new(source, path.clone(), max_bytes);
                for _ in 0..reading.skip {
                    if lines.next_line()?.is_none() {
                        break;
                    }
                }
                Kind::JsonLines(lines)
            }
            Format::Parquet => Kind::Parquet(Box::new(Rows::open(file, reading)?)),
        };
        Ok(Self {
            path,
            max_bytes,
            kind,
        })
    }

    fn read(&mut self) -> Result<Option<Record>, DataError> {
        match &mut self.kind {
            Kind::Over => Ok(None),
            Kind::Text(source) => source
                .take()
                .map(|source| read_text(source, &self.path, self.max_bytes))
                .transpose(),
            Kind::JsonLines(lines) => read_json_line(lines, &self.path),
            Kind::Parquet(rows) => rows.read(),
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let read = self.read();
        if read.is_err() {
            self.kind = Kind::Over;
        }
        read.transpose()
    }
}

/// The lines of a file, unpacked where its name ends in `.gz` or `.zst`, with their numbers from 1. It ends after the first error.
pub struct TextLines(Option<Lines>);

impl TextLines {
    /// Opens the file at `path`, no line of which may exceed `max_bytes`.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(path: &Path, max_bytes: usize) -> Result<Self, DataError> {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let file = InputFile {
            name: String::new(),
            path: path.to_owned(),
            format: Format::JsonLines,
            compression: match ending {
                Some("gz") => Compression::Gzip,
                Some("zst") => Compression::Zstd,
                _ => Compression::None,
            },
        };
        let source = open(&file, &Arc::default())?;
        Ok(Self(Some(Lines::new(source, file.path, max_bytes))))
    }
}

impl Iterator for TextLines {
    type Item = Result<(usize, Vec<u8>), DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.0.as_mut()?.next_line();
        let line = line.map(|line| line.map(|(number, line)| (number as usize + 1, line.to_vec())));
        if line.is_err() {
            self.0 = None;
        }
        line.transpose()
    }
}

fn read_text(source: impl Read, path: &Path, max_bytes: usize) -> Result<Record, DataError> {
    let mut bytes = Vec::new();
    let limit = (max_bytes as u64).saturating_add(1);
    source
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|source| DataError::read(path, source))?;
    if bytes.len() > max_bytes {
        return Err(DataError::TooLong {
            path: path.to_owned(),
            line: 1,
            limit: max_bytes,
        });
    }
    let mut text = String::from_utf8(bytes).map_err(|error| DataError::InvalidUtf8 {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    if text.as_bytes().starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(Record { number: 0, text })
}

/// The next line that is not blank.
fn read_json_line(lines: &mut Lines, path: &Path) -> Result<Option<Record>, DataError> {
    #[derive(Deserialize)]
    struct Object {
        text: Option<String>,
    }
    while let Some((number, line)) = lines.next_line()? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let place = usize::try_from(number)
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let object: Object = serde_json::from_slice(line).map_err(|error| DataError::BadLine {
            path: path.to_owned(),
            line: place,
            message: error.to_string(),
        })?;
        let text = object.text.ok_or_else(|| DataError::MissingText {
            path: path.to_owned(),
            line: place,
        })?;
        return Ok(Some(Record { number, text }));
    }
    Ok(None)
}
