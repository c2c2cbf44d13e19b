use super::*;

/// Words `a` and `b`, an unknown token, and a gap before the end of document at id 9. It asks for truncation to
/// one token and for padding to six, both of which must be ignored.
const WORDS: &str = include_str!("../../tests/words.json");

fn words(json: &str) -> (tempfile::TempDir, Result<Tokenizer, TokenizerError>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    std::fs::write(&path, json).unwrap();
    let tokenizer = Tokenizer::from_spec(path.to_str().unwrap());
    (directory, tokenizer)
}

#[test]
fn bytes_are_their_own_ids() {
    let tokenizer = Tokenizer::from_spec("byte").unwrap();
    assert_eq!(tokenizer.encode("né").unwrap(), [0x6e, 0xc3, 0xa9]);
    assert_eq!(tokenizer.encode_with_ends("né").unwrap().ends, [1, 2, 3]);
    assert_eq!(tokenizer.vocab_size(), 257);
    assert_eq!(tokenizer.end_of_document().unwrap(), 256);
    assert_eq!(tokenizer.name(), "byte");
    assert_eq!(tokenizer.decode(&[0x6e, 256, 0xc3, 0xa9]).unwrap(), "né");
    assert_eq!(tokenizer.decode(&[0xc3]).unwrap(), "\u{fffd}");
}

#[test]
fn a_published_tokenizer_neither_truncates_nor_pads() {
    let (_directory, tokenizer) = words(WORDS);
    let tokenizer = tokenizer.unwrap();
    assert_eq!(tokenizer.encode("b a b").unwrap(), [1, 0, 1]);
    assert_eq!(tokenizer.vocab_size(), 10);
    assert_eq!(tokenizer.end_of_document().unwrap(), 9);
    assert_eq!(tokenizer.decode(&[1, 0, 9]).unwrap(), "b a");
}

#[test]
fn ends_account_for_every_byte() {
    let (_directory, tokenizer) = words(WORDS);
    let encoding = tokenizer.unwrap().encode_with_ends("b éé a \n").unwrap();
    assert_eq!(encoding.ids, [1, 2, 0]);
    assert_eq!(encoding.ends, [1, 6, 10]);
}

#[test]
fn the_name_of_a_special_token_in_a_text_is_only_text() {
    let (_directory, tokenizer) = words(&WORDS.replace(r#", "</s>": 9}"#, "}"));
    let tokenizer = tokenizer.unwrap();
    let end = tokenizer.end_of_document().unwrap();
    assert!(!tokenizer.encode("a </s> b").unwrap().contains(&end));
}

#[test]
fn the_name_of_a_special_token_in_a_conversation_is_that_token() {
    let (_directory, tokenizer) = words(WORDS);
    let tokenizer = tokenizer.unwrap();
    assert_eq!(tokenizer.encode_with_special("a</s>b").unwrap(), [0, 9, 1]);
    assert_eq!(Tokenizer::Byte.encode_with_special("<s>").unwrap().len(), 3);
}

#[test]
fn what_a_tokenizer_puts_before_a_text_is_known() {
    let start = r#""post_processor": {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [9], "tokens": ["</s>"]}}}"#;
    let (_directory, tokenizer) = words(&WORDS.replace(r#""post_processor": null"#, start));
    assert_eq!(tokenizer.unwrap().opening().unwrap(), [9]);
    let end = start.replace(
        r#"[{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]"#,
        r#"[{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]"#,
    );
    assert_ne!(start, end);
    for other in [r#""post_processor": null"#, &end] {
        let (_directory, tokenizer) = words(&WORDS.replace(r#""post_processor": null"#, other));
        assert!(tokenizer.unwrap().opening().unwrap().is_empty());
    }
}

#[test]
fn ids_that_no_text_is_turned_into_are_known() {
    let (_directory, tokenizer) = words(WORDS);
    let tokenizer = tokenizer.unwrap();
    assert!(tokenizer.only_special_from(9) && tokenizer.only_special_from(3));
    assert!(!tokenizer.only_special_from(2));
    assert!(!Tokenizer::Byte.only_special_from(256));
}

#[test]
fn a_tokenizer_without_an_end_of_document_says_what_was_looked_for() {
    let (_directory, tokenizer) = words(&WORDS.replace("</s>", "[SEP]"));
    let error = tokenizer.unwrap().end_of_document().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("looked for <|endoftext|>, </s>, <eos>, <|end_of_text|>"),
        "{error}"
    );
}

#[test]
fn a_bad_spec_or_file_is_refused() {
    let error = Tokenizer::from_spec("gpt-2").unwrap_err();
    assert!(matches!(error, TokenizerError::Unknown { .. }), "{error}");
    let (_directory, tokenizer) = words("{\"version\": 3");
    let error = tokenizer.unwrap_err();
    assert!(matches!(error, TokenizerError::Bad { .. }), "{error}");
}
