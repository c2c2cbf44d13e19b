//! Malformed files: a clear error in bounded memory and time, never a panic.
//!
//! Every file that this crate reads is made once, in order, and then damaged: cut short at many places, one bit turned at
//! many places, and pieces moved, repeated and overwritten by a generator of fixed seed.

mod seeds;
mod targets;

use std::io::Write;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use rstest::rstest;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a reader may take for a file of some kilobytes: the largest page of a Parquet file and some room.
const MAX_MEMORY_MB: f32 = 600.0;
const MAX_TIME: Duration = Duration::from_secs(20);
/// Places at which a file is damaged in one way.
const PLACES: usize = 400;

/// Calls `target` with `seed` damaged in every way.
fn damage(seed: &[u8], target: impl Fn(&[u8])) {
    let call = |bytes: &[u8], how: &str| {
        let start = Instant::now();
        target(bytes);
        let (time, memory) = (start.elapsed(), MEMORY.peak_usage_as_mb());
        assert!(time < MAX_TIME, "{how}: {time:?}");
        assert!(memory < MAX_MEMORY_MB, "{how}: {memory} MB");
    };
    call(seed, "whole");
    let step = seed.len().div_ceil(PLACES).max(1);
    for place in (0..seed.len()).step_by(step) {
        call(&seed[..place], &format!("cut at {place}"));
        let mut turned = seed.to_vec();
        turned[place] ^= 1 << (place / step % 8);
        call(&turned, &format!("a bit of byte {place} turned"));
    }
    let mut random = seeds::Random(7);
    for round in 0..PLACES {
        call(
            &seeds::mutated(seed, &mut random),
            &format!("mutation {round}"),
        );
    }
}

#[rstest]
#[case("txt", seeds::text())]
#[case("jsonl", seeds::json_lines())]
#[case("jsonl.gz", seeds::gzip(&seeds::json_lines()))]
#[case("jsonl.zst", seeds::zstd(&seeds::json_lines()))]
#[case::parquet("parquet", seeds::parquet(seeds::Codec::Plain))]
#[case::parquet_snappy("parquet", seeds::parquet(seeds::Codec::Snappy))]
#[case::parquet_zstd("parquet", seeds::parquet(seeds::Codec::Zstd))]
fn damaged_input(#[case] extension: &str, #[case] seed: Vec<u8>) {
    damage(&seed, |bytes| targets::records(bytes, extension));
}

#[rstest]
#[case::words(seeds::words_tokenizer())]
#[case::bpe(seeds::bpe_tokenizer())]
fn damaged_tokenizer(#[case] seed: Vec<u8>) {
    damage(&seed, targets::tokenizer);
}

#[rstest]
#[case("index.json")]
#[case("train-00000.tokens")]
#[case("train-00000.docs")]
#[case("validation-00000.tokens")]
#[case("validation-00000.docs")]
#[case("validation-00000.ends")]
#[case("validation-00000.text")]
fn damaged_folder(#[case] name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let seed = std::fs::read(targets::prepared(dir.path()).join(name)).unwrap();
    damage(&seed, |bytes| targets::folder(bytes, name));
}

#[test]
fn damaged_progress() {
    let seed = br#"{"settings": {"tokenizer": "byte", "vocab_size": 257, "end_of_document": 256,
        "validation_fraction": 0.3, "deduplicate": false, "shard_tokens": 200, "max_document_bytes": 1048576,
        "inputs": [{"name": "in.jsonl", "bytes": 950}], "changed": [0]},
        "mark": {"file": 0, "records": 3, "blank": 0, "duplicates": 0}, "train": [], "validation": []}"#;
    let index = targets::resumed(seed).unwrap();
    let documents: u64 = index
        .train
        .iter()
        .chain(&index.validation)
        .map(|s| s.documents)
        .sum();
    assert_eq!(documents, 37, "three lines were done");
    damage(seed, targets::progress);
}

#[test]
fn damaged_raw_tokens() {
    damage(b"\x93NUMPY\x01\x00\x76\x00", targets::raw_tokens);
}

/// The folder's sizes are changed in the index and on disk alike, so that only the hash and the content can tell.
#[test]
fn numbers_that_point_outside_the_text_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = targets::prepared(dir.path());
    let path = out.join("validation-00000.ends");
    let mut ends = std::fs::read(&path).unwrap();
    ends[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    std::fs::write(&path, &ends).unwrap();
    let shards = hybridnorm_data::Shards::open(&out).unwrap();
    let held_out = hybridnorm_data::ShardedHeldOut::of(&[&shards]).unwrap();
    let error = hybridnorm_data::Validation::new(&held_out, 1, None).unwrap_err();
    assert!(
        error.to_string().contains("validation-00000.ends"),
        "{error}"
    );
    let error = shards.verify(|_| {}).unwrap_err();
    assert!(error.to_string().contains("its hash is not"), "{error}");
}

/// A gigabyte that packs into a megabyte costs no more than one line may have.
#[rstest]
#[case("jsonl.gz", seeds::gzip as fn(&[u8]) -> Vec<u8>)]
#[case("txt.gz", seeds::gzip)]
#[case("jsonl.zst", seeds::zstd)]
#[case("txt.zst", seeds::zstd)]
fn a_bomb_is_cut_off(#[case] extension: &str, #[case] pack: fn(&[u8]) -> Vec<u8>) {
    // Members and frames may be appended, so that a gigabyte need not be packed.
    let part = pack(&vec![b'x'; 4 << 20]);
    let bomb = part.repeat(256);
    let before = MEMORY.current_usage_as_mb();
    MEMORY.reset_peak_usage();
    targets::records(&bomb, extension);
    let memory = MEMORY.peak_usage_as_mb() - before;
    assert!(memory < 64.0, "{memory} MB");
}

#[test]
fn a_zstd_frame_that_asks_for_two_gigabytes_of_window_is_refused() {
    // Magic number, a descriptor without anything, a window of 2^(10 + 21), then a raw block of one byte.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x09, 0x00, 0x00, b'x'];
    targets::records(&frame, "txt.zst");
}

#[test]
fn nesting_without_end_is_an_error() {
    let line = format!("{{\"text\": \"a\", \"b\": {}", "[".repeat(500_000));
    targets::records(line.as_bytes(), "jsonl");
    targets::tokenizer(line.as_bytes());
}

#[test]
fn a_pattern_that_backtracks_without_end_is_an_error_in_time() {
    let json = String::from_utf8(seeds::words_tokenizer()).unwrap();
    let split = r#"{"type": "Split", "pattern": {"Regex": "(?=(a+)+$)(a|aa)+\\1"}, "behavior": "Isolated", "invert": false}"#;
    let json = json.replace(r#"{"type": "WhitespaceSplit"}"#, split);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    std::fs::File::create(&path)
        .unwrap()
        .write_all(json.as_bytes())
        .unwrap();
    let start = Instant::now();
    if let Ok(tokenizer) = hybridnorm_data::Tokenizer::from_file(&path) {
        let text = format!("{}b", "a".repeat(3000));
        let _ = tokenizer.encode(&text);
        let _ = tokenizer.encode_with_ends(&text);
    }
    assert!(start.elapsed() < 3 * MAX_TIME, "{:?}", start.elapsed());
}
