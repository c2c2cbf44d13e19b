//! Small files that are in order, and ways to put them out of it.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

pub fn text() -> Vec<u8> {
    "A wörd is a wörd.\r\n\u{1F600} 0123456789\n"
        .repeat(8)
        .into_bytes()
}

pub fn json_lines() -> Vec<u8> {
    let line = |n: usize| {
        format!(
            "{{\"id\": {n}, \"text\": \"wörd \\u00e9\\n {n}\", \"more\": [1, {{\"a\": null}}]}}\n"
        )
    };
    (0..20).map(line).collect::<String>().into_bytes()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

pub enum Codec {
    Plain,
    Snappy,
    Zstd,
}

/// Two row groups; the texts repeat, so that there is a dictionary.
pub fn parquet(codec: Codec) -> Vec<u8> {
    let schema = "message m { required int64 id; optional binary text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let codec = match codec {
        Codec::Plain => Compression::UNCOMPRESSED,
        Codec::Snappy => Compression::SNAPPY,
        Codec::Zstd => Compression::ZSTD(Default::default()),
    };
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    for rows in [50, 3] {
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let ids: Vec<i64> = (0..rows).collect();
        column
            .typed::<Int64Type>()
            .write_batch(&ids, None, None)
            .unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let text = |n: &i64| ByteArray::from(format!("wörd {}", n % 7).as_str());
        let texts: Vec<ByteArray> = ids.iter().map(text).collect();
        let levels = vec![1; texts.len()];
        column
            .typed::<ByteArrayType>()
            .write_batch(&texts, Some(&levels), None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.into_inner().unwrap()
}

pub fn words_tokenizer() -> Vec<u8> {
    br#"{
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 9, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": {"type": "NFC"}, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
        "decoder": null,
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2, "</s>": 9}, "unk_token": "?"}
    }"#
    .to_vec()
}

/// As `tokenizer train` writes it, with a few merges.
pub fn bpe_tokenizer() -> Vec<u8> {
    br#"{
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
                          "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": {"<|endoftext|>": 0, "a": 1, "b": 2, "w": 3, "r": 4, "d": 5, "0": 6, "1": 7, "aa": 8,
                            "aaaa": 9, "01": 10},
                  "merges": [["a", "a"], ["aa", "aa"], ["0", "1"]]}
    }"#
    .to_vec()
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound.max(1) as u64) as usize
    }
}

/// One to four of: a byte overwritten, a piece repeated, a piece removed, a number made very large.
pub fn mutated(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let place = random.below(bytes.len());
        let end = (place + 1 + random.below(16)).min(bytes.len());
        if place >= end {
            continue;
        }
        match random.below(4) {
            0 => bytes[place] = random.below(256) as u8,
            1 => {
                let piece = bytes[place..end].to_vec();
                bytes.splice(place..place, piece);
            }
            2 => drop(bytes.drain(place..end)),
            // The largest number in every encoding that these files have: varints, fixed widths and decimal digits.
            _ => {
                let digits = bytes[place].is_ascii_digit();
                bytes[place..end].fill(if digits { b'9' } else { 0xff });
            }
        }
    }
    bytes
}
