//! Documents to be scored: from files, or the held-out side of a prepared folder.

use std::path::Path;
use std::sync::Arc;

use crate::data::{
    DEFAULT_MAX_DOCUMENT_BYTES, DataError, Files, HeldOut, Reading, Records, ShardedHeldOut, Shards,
};
use crate::error::Error;

/// Tokens that are looked through at once for ends of documents.
const TOKENS_AT_ONCE: u64 = 1 << 16;

/// A document after the other.
type Documents = Box<dyn Iterator<Item = Result<String, Error>>>;

/// The documents at `path`, read one at a time.
pub(super) fn documents(path: &Path) -> Result<Documents, Error> {
    match Shards::is_prepared(path) {
        true => held_out(path),
        false => of_files(path),
    }
}

fn of_files(path: &Path) -> Result<Documents, Error> {
    let reading = Reading {
        skip: 0,
        max_document_bytes: DEFAULT_MAX_DOCUMENT_BYTES,
        bytes_read: Arc::default(),
    };
    let files = Files::find(&[path.to_path_buf()])?.files.into_iter();
    let records = files.flat_map(move |file| {
        let opened = Records::open(&file, &reading);
        let (records, error) = match opened {
            Ok(records) => (Some(records), None),
            Err(error) => (None, Some(Err(error))),
        };
        records.into_iter().flatten().chain(error)
    });
    Ok(Box::new(records.map(|record| Ok(record?.text))))
}

/// The documents that a prepared folder holds out. Their text is read, not their tokens: these may be another tokenizer's.
fn held_out(path: &Path) -> Result<Documents, Error> {
    let shards = Shards::open(path)?;
    if shards.index().validation.is_empty() {
        let message = "it holds no documents out: prepare it with --validation above 0";
        return Err(DataError::BadShard {
            path: path.to_path_buf(),
            message: message.to_string(),
        }
        .into());
    }
    let end = shards.index().end_of_document;
    let side = ShardedHeldOut::of(&[&shards])?;
    let (mut begin, mut position) = (0, 0);
    let mut ends = Vec::new().into_iter();
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            if let Some(next) = ends.next() {
                let text = side.text(begin..next);
                begin = next;
                // Text as `prepare` took it, whole documents of UTF-8.
                let text = text.map(|text| String::from_utf8_lossy(&text).into_owned());
                return Some(text.map_err(Error::from));
            }
            let total = side.tokens().tokens();
            let count = TOKENS_AT_ONCE.min(total - position);
            if count == 0 {
                return None;
            }
            let ids = match side.tokens().window(position, count as usize) {
                Ok(ids) => ids,
                Err(error) => {
                    position = total;
                    return Some(Err(error.into()));
                }
            };
            let found = ids.iter().enumerate().filter(|(_, id)| **id == end);
            let found = found.map(|(place, _)| position + place as u64 + 1);
            ends = found.collect::<Vec<u64>>().into_iter();
            position += count;
        }
    })))
}
