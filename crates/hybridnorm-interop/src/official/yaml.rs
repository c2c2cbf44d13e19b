//! `config.yaml` of the authors' runs, as the values of a JSON document.

use granit_parser::{Event, Options, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The document in `text`.
///
/// # Errors
/// With the line, when it is no YAML, holds several documents or none, keys that are no scalars, or aliases: no such file has any.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut options = Options::default();
    options.emit_comments = false;
    let mut open: Vec<Open> = Vec::new();
    let mut document = None;
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| error.to_string())?;
        let at = |what: &str| Err(format!("line {}: {what}", span.start.line()));
        let done = match event {
            Event::Scalar(text, style, ..) => match style {
                ScalarStyle::Plain => plain(&text),
                _ => Value::String(text.into_owned()),
            },
            Event::MappingStart(..) => {
                open.push(Open::Table(Map::new(), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(Open::Table(table, _)) => table.into(),
                Some(Open::List(list)) => list.into(),
                None => return at("an end without a beginning"),
            },
            Event::Alias(_) | Event::UnresolvedAlias(_) => return at("aliases are not read here"),
            _ => continue,
        };
        match open.last_mut() {
            Some(Open::List(list)) => list.push(done),
            Some(Open::Table(table, key)) => match (key.take(), done) {
                (Some(key), value) => {
                    if table.insert(key.clone(), value).is_some() {
                        return at(&format!("{key} is there twice"));
                    }
                }
                (None, Value::String(name)) => *key = Some(name),
                (None, Value::Array(_) | Value::Object(_)) => return at("a key is no scalar"),
                (None, other) => *key = Some(other.to_string()),
            },
            None if document.is_some() => return at("a second document begins"),
            None => document = Some(done),
        }
    }
    document.ok_or_else(|| "it holds nothing".to_string())
}

/// A collection that has not ended: a mapping with the key whose value comes next, or a sequence.
enum Open {
    Table(Map<String, Value>, Option<String>),
    List(Vec<Value>),
}

/// A scalar without quotes (YAML 1.2, core schema).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return true.into(),
        "false" | "False" | "FALSE" => return false.into(),
        _ => {}
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    let is_number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let number = text.parse::<f64>().ok().filter(|_| is_number);
    match number.and_then(serde_json::Number::from_f64) {
        Some(number) => number.into(),
        None => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_document_becomes_its_values() {
        let text = "run_name: \"1\" # a comment\nmodel:\n  d_model: 64\n  layer_norm_eps: 1.0e-05\n  rope: true\n  emb_init_std: null\n  \
                    init_fn: full_megatron\n  alibi_bias_max: 8.0\ndata: {paths: [a, -3], empty: }\n";
        let expected = json!({
            "run_name": "1",
            "model": {"d_model": 64, "layer_norm_eps": 1e-5, "rope": true, "emb_init_std": null, "init_fn": "full_megatron", "alibi_bias_max": 8.0},
            "data": {"paths": ["a", -3], "empty": null},
        });
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn what_is_no_such_document_is_refused() {
        for (text, words) in [
            ("", "nothing"),
            ("a: 1\na: 2\n", "line 2: a is there twice"),
            ("a: &x 1\nb: *x\n", "aliases"),
            ("? [1]\n: 2\n", "no scalar"),
            ("--- 1\n--- 2\n", "second document"),
            ("a: [1, 2", ""),
            ("a:\n\t- b: {", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
