//! From files of text to a prepared folder, in parallel, in memory that does not grow with the corpus.
//!
//! ```text
//! reader ── chunks of documents ──> workers ── ids ──> writer
//!   one thread; hash, side,           tokenize           the caller's thread; in the order of the reader
//!   duplicates
//! ```
//!
//! The reader puts a receipt for every chunk into a queue of fixed length, and the writer takes them out in order, so
//! what is written depends neither on the number of workers nor on who is faster. Shards of both sides are closed
//! together, at the end of a document; then `progress.json` says how far the inputs are written. A run that is killed
//! loses what came after, and the next one begins there.

mod documents;
mod folder;
mod segment;
mod state;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::{DataError, Files, Index, InputFile, Side, Tokenizer};
use documents::{Chunk, Documents, Mark};
use folder::Folder;
use segment::{Encoded, Segment};
use state::State;

/// Tokens of a training shard before the next is begun: 128 Mi, 256 MiB at two bytes each.
pub const DEFAULT_SHARD_TOKENS: u64 = 1 << 27;
/// UTF-8 bytes that a document may have unless told otherwise: 16 MiB. A worker needs some 30 times its document.
pub const DEFAULT_MAX_DOCUMENT_BYTES: usize = 16 << 20;
/// Chunks on their way per worker.
const CHUNKS_PER_WORKER: usize = 3;

/// What to prepare, and how.
#[derive(Debug, Clone)]
pub struct Preparation {
    /// Files, directories and patterns: [`Files::find`].
    pub inputs: Vec<PathBuf>,
    /// The folder to write, which is made if it is missing.
    pub out: PathBuf,
    /// How text becomes ids.
    pub tokenizer: Tokenizer,
    /// The share of documents to hold out, by the hash of their text: 0 or more and less than 1.
    pub validation_fraction: f64,
    /// Keep only the first of documents with the same text. Costs 20 to 40 bytes of memory per document.
    pub deduplicate: bool,
    /// Tokens after which a shard is closed.
    pub shard_tokens: u64,
    /// UTF-8 bytes that a document may have.
    pub max_document_bytes: usize,
    /// Threads that tokenize.
    pub workers: usize,
}

/// How far a preparation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from disk, of `bytes_total`.
    pub bytes_read: u64,
    /// Bytes of all inputs on disk.
    pub bytes_total: u64,
    /// Documents written, those of an earlier run among them.
    pub documents: u64,
    /// Tokens written, those of an earlier run among them.
    pub tokens: u64,
    /// UTF-8 bytes of the text written, those of an earlier run among them.
    pub text_bytes: u64,
}

/// What the writer takes from the queue.
enum Receipt {
    Chunk(Receiver<Result<Vec<Encoded>, DataError>>),
    End(Mark),
    Failed(DataError),
}

/// A chunk, and where its ids are to go.
type Work = (Chunk, SyncSender<Result<Vec<Encoded>, DataError>>);

impl Preparation {
    /// Prepares the folder, or goes on where an earlier call was killed; `report` hears of each chunk written. A folder
    /// that is already prepared from the same inputs with the same settings is left as it is.
    ///
    /// # Errors
    ///
    /// An input cannot be found, read or tokenized, which is named by file and line; the folder cannot be written, holds
    /// something else, or is being prepared by another process; a field is out of range; or one side of the split has
    /// no document.
    pub fn run(&self, report: &mut dyn FnMut(Progress)) -> Result<Index, DataError> {
        self.check()?;
        let files = Files::find(&self.inputs)?.files;
        let settings = state::Settings::new(self, &files)?;
        let (folder, state) = match Folder::begin(&self.out, settings)? {
            folder::Begin::Done(index) => return Ok(index),
            folder::Begin::From(folder, state) => (folder, state),
        };
        let progress = Progress {
            bytes_total: state.settings.inputs.iter().map(|input| input.bytes).sum(),
            ..state.progress()
        };
        let seen = folder.seen(&state)?;
        let bytes_read = Arc::new(AtomicU64::new(state.bytes_before()));
        thread::scope(|scope| {
            // All dropped on the way out, which is what stops the threads when the writer fails.
            let (queue, receipts) = sync_channel(CHUNKS_PER_WORKER * self.workers);
            let (work, chunks) = sync_channel(CHUNKS_PER_WORKER * self.workers);
            let documents = Documents::new(self, files, state.mark, seen, Arc::clone(&bytes_read));
            scope.spawn(move || read(documents, &work, &queue));
            let chunks = Arc::new(Mutex::new(chunks));
            for _ in 0..self.workers {
                let chunks = Arc::clone(&chunks);
                scope.spawn(move || encode(&self.tokenizer, &chunks));
            }
            drop(chunks);
            let mut told = |progress: Progress| {
                report(Progress {
                    bytes_read: bytes_read.load(Ordering::Relaxed),
                    ..progress
                });
            };
            write(folder, *state, progress, receipts, &mut told)
        })
    }

    fn check(&self) -> Result<(), DataError> {
        let refused = |field, value: String, allowed| {
            Err(DataError::OutOfRange {
                field,
                value,
                allowed,
            })
        };
        if !(self.validation_fraction >= 0.0 && self.validation_fraction < 1.0) {
            let value = self.validation_fraction.to_string();
            return refused("validation fraction", value, "0 or more, and below 1");
        }
        for (field, value) in [
            ("workers", self.workers as u64),
            ("tokens of a shard", self.shard_tokens),
            ("bytes of a document", self.max_document_bytes as u64),
        ] {
            if value == 0 {
                return refused(field, value.to_string(), "a whole number of at least 1");
            }
        }
        if self.workers > 1024 {
            return refused("workers", self.workers.to_string(), "at most 1024");
        }
        Ok(())
    }
}

/// Sends every chunk to the workers and its receipt to the writer, until one of them is gone.
fn read(mut documents: Documents, work: &SyncSender<Work>, queue: &SyncSender<Receipt>) {
    loop {
        let receipt = match documents.chunk() {
            Ok(Some(chunk)) => {
                let (ids, receipt) = sync_channel(1);
                if work.send((chunk, ids)).is_err() {
                    return;
                }
                Receipt::Chunk(receipt)
            }
            Ok(None) => Receipt::End(documents.mark()),
            Err(error) => Receipt::Failed(error),
        };
        let more = matches!(receipt, Receipt::Chunk(_));
        if queue.send(receipt).is_err() || !more {
            return;
        }
    }
}

fn encode(tokenizer: &Tokenizer, chunks: &Mutex<Receiver<Work>>) {
    loop {
        let next = chunks.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((chunk, ids)) = next else { return };
        let encoded = chunk
            .into_iter()
            .map(|document| Encoded::new(document, tokenizer));
        // Nobody waits for it when the writer has failed.
        let _ = ids.send(encoded.collect());
    }
}

fn write(
    mut folder: Folder,
    mut state: State,
    mut progress: Progress,
    receipts: Receiver<Receipt>,
    report: &mut dyn FnMut(Progress),
) -> Result<Index, DataError> {
    let mut segment = Segment::new(&folder, &state);
    report(progress);
    for receipt in receipts {
        let documents = match receipt {
            Receipt::Failed(error) => return Err(error),
            Receipt::End(mark) => {
                state.mark = mark;
                break;
            }
            Receipt::Chunk(ids) => match ids.recv() {
                Ok(documents) => documents?,
                // A worker that is gone has panicked: the scope passes that on.
                Err(_) => break,
            },
        };
        for document in documents {
            progress.documents = progress.documents.saturating_add(1);
            progress.tokens = progress.tokens.saturating_add(document.tokens());
            progress.text_bytes = progress.text_bytes.saturating_add(document.bytes());
            segment.write(&document)?;
            state.mark = document.mark;
            if segment.tokens() >= state.settings.shard_tokens {
                segment.finish(&mut folder, &mut state)?;
                segment = Segment::new(&folder, &state);
            }
        }
        report(progress);
    }
    segment.finish(&mut folder, &mut state)?;
    folder.finish(state)
}

/// The texts that have come before, by the first 128 bits of their BLAKE3.
type Seen = HashSet<u128>;

impl Mark {
    fn side(fraction: f64, hash: &blake3::Hash) -> Side {
        if super::split::place(hash) < fraction {
            Side::Validation
        } else {
            Side::Train
        }
    }
}

fn sizes(files: &[InputFile]) -> Result<Vec<std::fs::Metadata>, DataError> {
    let size = |file: &InputFile| {
        std::fs::metadata(&file.path).map_err(|source| DataError::read(&file.path, source))
    };
    files.iter().map(size).collect()
}

#[cfg(test)]
mod tests;
