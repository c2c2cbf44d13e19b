//! What a hostile file meets: each function gives the bytes to one reader, whose only allowed answers are an error and
//! a result within bounds. Shared by the tests of this crate and its fuzz targets.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use hybridnorm_data::{
    Files, HeldOut, Preparation, Reading, Records, ShardedHeldOut, Shards, TokenFiles, TokenSource,
    Tokenizer, Validation, Width,
};

/// UTF-8 bytes that a document may have here.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;
/// Documents that are read before a file is believed to be endless.
const MAX_DOCUMENTS: usize = 100_000;

/// The reader of files, by their extension.
pub fn records(bytes: &[u8], extension: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(format!("hostile.{extension}"));
    fs::write(&path, bytes).unwrap();
    let files = Files::find(std::slice::from_ref(&path)).unwrap().files;
    for skip in [0, 3] {
        let reading = Reading {
            skip,
            max_document_bytes: MAX_DOCUMENT_BYTES,
            bytes_read: Arc::default(),
        };
        match Records::open(&files[0], &reading) {
            Ok(records) => {
                for record in records.take(MAX_DOCUMENTS) {
                    match record {
                        Ok(record) => assert!(record.text.len() <= MAX_DOCUMENT_BYTES),
                        Err(error) => names(&error, "hostile."),
                    }
                }
            }
            Err(error) => names(&error, "hostile."),
        }
    }
}

/// `tokenizer.json`, with which a text is then encoded and decoded.
pub fn tokenizer(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    fs::write(&path, bytes).unwrap();
    match Tokenizer::from_file(&path) {
        Ok(tokenizer) => {
            let text = "a b wörd <|endoftext|> \u{1F600}\n\n  0123456789 aaaaaaaa";
            if let Ok(ids) = tokenizer.encode(text) {
                let _ = tokenizer.decode(&ids);
            }
            if let Ok(encoding) = tokenizer.encode_with_ends(text) {
                assert_eq!(encoding.ids.len(), encoding.ends.len());
                assert!(encoding.ends.is_sorted());
                assert!(encoding.ends.last().is_none_or(|&last| last == text.len()));
            }
            let _ = tokenizer.end_of_document();
        }
        Err(error) => names(&error.into(), "tokenizer.json"),
    }
}

/// A prepared folder of which the file `name` has other bytes.
pub fn folder(bytes: &[u8], name: &str) {
    // Prepared once: it is the reading that is tried many times.
    static FILES: OnceLock<Vec<(OsString, Vec<u8>)>> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let entries = fs::read_dir(prepared(dir.path())).unwrap();
        let read = |entry: fs::DirEntry| (entry.file_name(), fs::read(entry.path()).unwrap());
        entries.map(|entry| read(entry.unwrap())).collect()
    });
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::write(dir.path().join(name), bytes).unwrap();
    match Shards::open(dir.path()) {
        Ok(shards) => {
            let _ = shards.verify(|_| {});
            let _ = shards.tokenizer();
            let train = shards.train();
            let _ = train.window(train.tokens().saturating_sub(3), 10);
            if let Ok(held_out) = ShardedHeldOut::of(&[&shards]) {
                let _ = held_out.tokens().window(0, 10);
                let _ = Validation::new(&held_out, 16, Some(4));
            }
        }
        Err(error) => names(&error, name),
    }
}

/// `progress.json` of a preparation that was cut off.
pub fn progress(bytes: &[u8]) {
    let _ = resumed(bytes);
}

/// What comes of going on from there.
pub fn resumed(bytes: &[u8]) -> Result<hybridnorm_data::Index, hybridnorm_data::DataError> {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("progress.json"), bytes).unwrap();
    preparation(dir.path()).run(&mut |_| {})
}

/// A file of bare token ids.
pub fn raw_tokens(bytes: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.npy");
    fs::write(&path, bytes).unwrap();
    for width in [Width::U16, Width::U32] {
        match TokenFiles::raw(&path, width) {
            Ok(files) => assert!(files.window(1, 100).is_ok()),
            Err(error) => names(&error, "hostile.npy"),
        }
    }
}

/// A small folder that is in order.
pub fn prepared(dir: &Path) -> std::path::PathBuf {
    let preparation = preparation(dir);
    preparation.run(&mut |_| {}).unwrap();
    preparation.out
}

fn preparation(dir: &Path) -> Preparation {
    let lines: String = (0..40)
        .map(|n| format!("{{\"text\": \"document {n}\"}}\n"))
        .collect();
    let input = dir.join("in.jsonl");
    fs::write(&input, lines).unwrap();
    // So that a seed of `progress.json` can name it.
    let file = fs::File::options().write(true).open(&input).unwrap();
    file.set_modified(UNIX_EPOCH).unwrap();
    Preparation {
        inputs: vec![input],
        out: dir.join("out"),
        tokenizer: Tokenizer::Byte,
        validation_fraction: 0.3,
        deduplicate: false,
        shard_tokens: 200,
        max_document_bytes: MAX_DOCUMENT_BYTES,
        workers: 1,
    }
}

/// An error is one line and says which file.
fn names(error: &hybridnorm_data::DataError, part: &str) {
    let message = error.to_string();
    assert!(message.contains(part), "`{message}` does not name {part}");
}
