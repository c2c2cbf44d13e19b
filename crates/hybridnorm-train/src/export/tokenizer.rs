//! The tokenizer's files.

use std::fs;
use std::path::Path;

use hybridnorm_core::DecoderConfig;
use serde_json::{Map, Value, json};

use super::ExportError;
use crate::data::Tokenizer;

const FILE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
/// What may lie beside a tokenizer and belongs to it.
const BESIDE: [&str; 3] = [CONFIG, "special_tokens_map.json", "chat_template.jinja"];
/// The name of the end of a document where the tokenizer is the bytes themselves.
const END: &str = "<|endoftext|>";

/// Writes `tokenizer` into `dir`: its own files where it has any.
pub fn write(dir: &Path, tokenizer: &Tokenizer, model: &DecoderConfig) -> Result<(), ExportError> {
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(ExportError::io("write", &path))
    };
    let Some(file) = tokenizer.file() else {
        write(FILE, format!("{:#}\n", bytes(tokenizer.end_of_document()?)))?;
        return write(CONFIG, format!("{:#}\n", config(Some(END), model)));
    };
    let copy = |from: &Path, name: &str| {
        fs::copy(from, dir.join(name)).map_err(ExportError::io("copy", from))
    };
    copy(file, FILE)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    for name in BESIDE {
        let from = folder.join(name);
        if from.is_file() {
            copy(&from, name)?;
        }
    }
    if dir.join(CONFIG).exists() {
        return Ok(());
    }
    let end = tokenizer.end_of_document().ok();
    let end = end.and_then(|end| tokenizer.token(end));
    write(CONFIG, format!("{:#}\n", config(end.as_deref(), model)))
}

/// What `AutoTokenizer` needs to know: documents begin after the token that ends one, and a batch is filled up with it.
fn config(end: Option<&str>, model: &DecoderConfig) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "model_max_length": model.max_seq_len,
        "clean_up_tokenization_spaces": false,
    })
}

/// Bytes as a tokenizer: a vocabulary of the 256 characters that stand for them in byte-level BPE, without merges. Each text begins
/// with the end of a document, as in training.
fn bytes(end: u32) -> Value {
    let vocab: Map<String, Value> = (0..=255u8)
        .map(|byte| (character(byte).to_string(), byte.into()))
        .collect();
    let begin = json!({"SpecialToken": {"id": END, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": end, "content": END, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, text("A")],
            "pair": [begin, text("A"), text("B")],
            "special_tokens": {END: {"id": END, "ids": [end], "tokens": [END]}},
        },
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}

/// The character for a byte in byte-level BPE: itself where it is printable, and the next of those from U+0100 on where not.
fn character(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !printable(*other)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_a_tokenizer_of_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let model = DecoderConfig::new(257, 16, 2, 1);
        write(dir.path(), &Tokenizer::Byte, &model).unwrap();
        let read = Tokenizer::from_file(&dir.path().join(FILE)).unwrap();
        let text = "Zeile\n\té — \u{1f642} <|endoftext|> \u{7f}\u{0}";
        assert_eq!(
            read.encode(text).unwrap(),
            Tokenizer::Byte.encode(text).unwrap()
        );
        assert_eq!(read.end_of_document().unwrap(), 256);
        assert_eq!(read.vocab_size(), 257);
        let ids: Vec<u32> = text.bytes().map(u32::from).collect();
        assert_eq!(read.decode(&ids).unwrap(), text);
    }
}
