//! `metrics.jsonl` as columns. Kinds and fields that this version does not know are left alone.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

use super::error::ReportError;

/// The lines of a log that are whole.
#[derive(Debug, Clone, Default)]
pub(super) struct Log {
    lines: Vec<Value>,
    /// Whether there was something behind them: a run that is writing, or was killed while it wrote.
    pub torn: bool,
}

impl Log {
    /// Reads the log at `path`; without such a file it is empty.
    pub(super) fn read(path: &Path) -> Result<Self, ReportError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            file => file.map_err(ReportError::io("open", path))?,
        };
        let (mut reader, mut line, mut log) = (BufReader::new(file), Vec::new(), Self::default());
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            if read.map_err(ReportError::io("read", path))? == 0 {
                return Ok(log);
            }
            match serde_json::from_slice::<Value>(&line) {
                Ok(value) if value.is_object() && line.ends_with(b"\n") => log.lines.push(value),
                _ if !line.ends_with(b"\n") => {
                    log.torn = true;
                    return Ok(log);
                }
                _ => {
                    return Err(ReportError::File {
                        path: path.to_path_buf(),
                        reason: format!("line {} is no JSON object", log.lines.len() + 1),
                    });
                }
            }
        }
    }

    /// The lines of a kind, in order.
    pub(super) fn of(&self, kind: &'static str) -> impl Iterator<Item = &Value> {
        let is_kind = move |line: &&Value| line["kind"] == kind;
        self.lines.iter().filter(is_kind)
    }

    /// A number of the lines of a kind, by step: `field` is a name, or a path such as `gradient_norm.embedding`.
    pub(super) fn column(&self, kind: &'static str, field: &str) -> Vec<(f64, f64)> {
        let value = |line: &Value| Some((line["step"].as_f64()?, at(line, field).as_f64()?));
        self.of(kind).filter_map(value).collect()
    }

    /// A figure of each layer by step: the steps, and for each layer its values.
    pub(super) fn layers(
        &self,
        kind: &'static str,
        field: &str,
    ) -> (Vec<f64>, Vec<Vec<Option<f64>>>) {
        let lines = self.of(kind).filter_map(|line| {
            let values = at(line, field)
                .as_array()
                .filter(|values| !values.is_empty())?;
            Some((line["step"].as_f64()?, values))
        });
        let lines: Vec<(f64, &Vec<Value>)> = lines.collect();
        let layers = lines
            .iter()
            .map(|(_, values)| values.len())
            .max()
            .unwrap_or(0);
        let of_layer = |layer: usize| {
            let values = lines.iter().map(|(_, values)| values.get(layer)?.as_f64());
            values.collect()
        };
        let steps = lines.iter().map(|(step, _)| *step).collect();
        (steps, (0..layers).map(of_layer).collect())
    }
}

/// The value at a path of names with dots between them.
pub(super) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(value, |value, name| &value[name])
}
