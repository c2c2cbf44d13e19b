//! The scalars of a line of `metrics.jsonl`: every number in it, under its own name.

use serde_json::{Map, Value};

use crate::engine::log::Record;

/// Fields that place a figure, and are none.
const PLACES: [&str; 3] = ["kind", "step", "layer"];
/// A list per router and expert: too many tags. `metrics.jsonl` has it.
const LEFT_OUT: &str = "load";

/// Tags and values: `train/loss`, `train/routers/3/entropy`, `validation/bits_per_byte`, `diagnostics/attention_entropy/0`. None of a
/// record without figures, and none of a figure that is not a finite number.
pub(super) fn scalars(record: &Record) -> Vec<(String, f64)> {
    let section = match record {
        Record::Step(_) => "train".to_string(),
        Record::Evaluation { .. } => "validation".to_string(),
        Record::Task { record, .. } => format!("tasks/{}", record.task),
        Record::Diagnostics(_) => "diagnostics".to_string(),
        Record::Router { .. } | Record::Guard { .. } | Record::Change { .. } => return Vec::new(),
    };
    let mut found = Vec::new();
    if let Ok(Value::Object(fields)) = serde_json::to_value(record) {
        object(&section, &fields, &mut found);
    }
    found
}

fn object(prefix: &str, fields: &Map<String, Value>, found: &mut Vec<(String, f64)>) {
    let fields = fields
        .iter()
        .filter(|(name, _)| !PLACES.contains(&name.as_str()) && *name != LEFT_OUT);
    for (name, value) in fields {
        let tag = format!("{prefix}/{name}");
        match value {
            Value::Number(number) => found.extend(number.as_f64().map(|number| (tag, number))),
            Value::Object(fields) => object(&tag, fields, found),
            Value::Array(items) => {
                for (layer, item) in items.iter().enumerate() {
                    match item {
                        Value::Number(number) => {
                            let number = number.as_f64();
                            found.extend(number.map(|number| (format!("{tag}/{layer}"), number)));
                        }
                        Value::Object(fields) => {
                            let layer = fields.get("layer").and_then(Value::as_u64);
                            let tag = layer.map_or(tag.clone(), |layer| format!("{tag}/{layer}"));
                            object(&tag, fields, found);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}
