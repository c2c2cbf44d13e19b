//! The documents of all inputs in order, each with its side and its place.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

use super::{Preparation, Seen};
use crate::{DataError, InputFile, Reading, Records, Side};

/// A chunk is full at this many bytes of text or this many documents.
const CHUNK_BYTES: usize = 1 << 20;
const CHUNK_DOCUMENTS: usize = 4096;

/// How far the inputs are read, after a document or at the end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    /// The file that is being read, counted from 0.
    pub file: usize,
    /// Lines or rows of it that are done.
    pub records: u64,
    /// Blank documents dropped so far.
    pub blank: u64,
    /// Repeated documents dropped so far.
    pub duplicates: u64,
}

/// A document that is kept.
pub(super) struct Document {
    pub text: String,
    pub side: Side,
    /// The first 128 bits of the BLAKE3 of its text.
    pub key: u128,
    /// How far the inputs are read with it.
    pub mark: Mark,
}

pub(super) type Chunk = Vec<Document>;

/// The reader's state.
pub(super) struct Documents {
    files: Vec<InputFile>,
    open: Option<Records>,
    mark: Mark,
    seen: Option<Seen>,
    fraction: f64,
    reading: Reading,
}

impl Documents {
    /// The documents after `mark`; `seen` are the texts before it, if repeated ones are to be dropped.
    pub(super) fn new(
        preparation: &Preparation,
        files: Vec<InputFile>,
        mark: Mark,
        seen: Option<Seen>,
        bytes_read: Arc<AtomicU64>,
    ) -> Self {
        Self {
            files,
            open: None,
            mark,
            seen,
            fraction: preparation.validation_fraction,
            reading: Reading {
                skip: mark.records,
                max_document_bytes: preparation.max_document_bytes,
                bytes_read,
            },
        }
    }

    /// How far the inputs are read.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }

    /// The next documents, nothing at the end of the last file.
    pub(super) fn chunk(&mut self) -> Result<Option<Chunk>, DataError> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        while bytes < CHUNK_BYTES && chunk.len() < CHUNK_DOCUMENTS {
            let Some(document) = self.document()? else {
                break;
            };
            bytes += document.text.len();
            chunk.push(document);
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn document(&mut self) -> Result<Option<Document>, DataError> {
        loop {
            let Some(record) = self.record()? else {
                return Ok(None);
            };
            if record.trim().is_empty() {
                self.mark.blank = self.mark.blank.saturating_add(1);
                continue;
            }
            let hash = blake3::hash(record.as_bytes());
            let key = hash
                .as_bytes()
                .first_chunk()
                .map_or(0, |&head| u128::from_le_bytes(head));
            if self.seen.as_mut().is_some_and(|seen| !seen.insert(key)) {
                self.mark.duplicates = self.mark.duplicates.saturating_add(1);
                continue;
            }
            return Ok(Some(Document {
                side: Mark::side(self.fraction, &hash),
                text: record,
                key,
                mark: self.mark,
            }));
        }
    }

    /// The next text of the file that is open, or of the first one after it that has any.
    fn record(&mut self) -> Result<Option<String>, DataError> {
        loop {
            let Some(file) = self.files.get(self.mark.file) else {
                return Ok(None);
            };
            let records = match &mut self.open {
                Some(records) => records,
                None => self.open.insert(Records::open(file, &self.reading)?),
            };
            match records.next().transpose()? {
                Some(record) => {
                    self.mark.records = record.number + 1;
                    return Ok(Some(record.text));
                }
                None => {
                    self.mark.file += 1;
                    self.mark.records = 0;
                    self.reading.skip = 0;
                    self.open = None;
                }
            }
        }
    }
}
