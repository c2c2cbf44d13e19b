//! A module's parameters into safetensors files under a format's names, one parameter in memory at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Tensor, bf16};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::InteropError;
use crate::layout::Layout;
use crate::names::NameMap;

/// The type that weights are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// As they are trained.
    #[default]
    F32,
    /// Rounded to the nearest, ties to even: half the size.
    Bf16,
}

impl WeightType {
    fn bytes(self) -> u64 {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }

    /// As safetensors calls it.
    fn tag(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Bf16 => "BF16",
        }
    }

    /// As `config.json` calls it.
    pub(super) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
        }
    }

    /// The number that is written for `value`.
    pub fn round(self, value: f32) -> f32 {
        match self {
            Self::F32 => value,
            Self::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    fn write(self, out: &mut impl Write, values: &[f32]) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(4 << 14);
        for chunk in values.chunks(1 << 14) {
            bytes.clear();
            match self {
                Self::F32 => bytes.extend(chunk.iter().flat_map(|x| x.to_le_bytes())),
                Self::Bf16 => {
                    bytes.extend(chunk.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()));
                }
            }
            out.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The files, in order.
    pub files: Vec<String>,
    /// Tensors in them.
    pub tensors: usize,
    /// Bytes of the tensors.
    pub bytes: u64,
}

/// A tensor to be written.
#[derive(Debug, Clone)]
struct Entry {
    name: String,
    shape: Vec<usize>,
    bytes: u64,
}

/// Writes the parameters of `module` into `dir`: `model.safetensors`, or where they exceed `max_shard` bytes,
/// `model-00001-of-0000N.safetensors` and `model.safetensors.index.json`. No file holds more than that, but for a tensor that does.
///
/// # Errors
/// When a parameter has no name in the format, holds a number that is not finite, or cannot be read from its device; when the file
/// system refuses.
pub fn write_weights<M: Module>(
    dir: &Path,
    module: &M,
    names: &NameMap,
    dtype: WeightType,
    max_shard: u64,
) -> Result<Written, InteropError> {
    let mut plan = Plan {
        names,
        dtype,
        path: Vec::new(),
        entries: Vec::new(),
        problems: Vec::new(),
    };
    module.visit(&mut plan);
    let Plan {
        entries, problems, ..
    } = plan;
    if !problems.is_empty() {
        return Err(InteropError::Mismatch(problems));
    }
    let shards = shards(&entries, max_shard);
    let files = file_names(shards.len());
    let mut writer = Writer {
        dir,
        names,
        dtype,
        path: Vec::new(),
        shards: shards.iter().zip(&files),
        open: None,
        result: Ok(()),
    };
    module.visit(&mut writer);
    let Writer { open, result, .. } = writer;
    result?;
    if let Some(open) = open {
        open.finish()?;
    }
    let bytes = entries.iter().map(|entry| entry.bytes).sum();
    if files.len() > 1 {
        let placed = shards.iter().zip(&files);
        let weight_map: BTreeMap<&str, &str> = placed
            .flat_map(|(shard, file)| {
                shard
                    .iter()
                    .map(|entry| (entry.name.as_str(), file.as_str()))
            })
            .collect();
        let index = json!({"metadata": {"total_size": bytes}, "weight_map": weight_map});
        super::write_json(&dir.join(INDEX), &index)?;
    }
    Ok(Written {
        files,
        tensors: entries.len(),
        bytes,
    })
}

const INDEX: &str = "model.safetensors.index.json";

fn file_names(shards: usize) -> Vec<String> {
    match shards {
        0 | 1 => vec!["model.safetensors".to_string()],
        n => (1..=n)
            .map(|i| format!("model-{i:05}-of-{n:05}.safetensors"))
            .collect(),
    }
}

/// The tensors of each file.
fn shards(entries: &[Entry], most: u64) -> Vec<Vec<Entry>> {
    let mut shards = vec![Vec::new()];
    let mut size = 0;
    for entry in entries {
        if size > 0 && size + entry.bytes > most {
            shards.push(Vec::new());
            size = 0;
        }
        size += entry.bytes;
        if let Some(last) = shards.last_mut() {
            last.push(entry.clone());
        }
    }
    shards
}

/// Lists the tensors that a module becomes.
struct Plan<'a> {
    names: &'a NameMap,
    dtype: WeightType,
    path: Vec<String>,
    entries: Vec<Entry>,
    problems: Vec<String>,
}

impl ModuleVisitor for Plan<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let Some(layout) = self.names.layout(&path, &param.lazy_shape().to_vec()) else {
            self.problems.push(format!("{path} has no name there"));
            return;
        };
        let dtype = self.dtype;
        self.entries.extend(layout.tensors().map(|(name, shape)| {
            let numbers: usize = shape.iter().product();
            Entry {
                name: name.to_string(),
                bytes: dtype.bytes() * numbers as u64,
                shape,
            }
        }));
    }
}

/// Writes what was planned, in the same order.
struct Writer<'a, S> {
    dir: &'a Path,
    names: &'a NameMap,
    dtype: WeightType,
    path: Vec<String>,
    /// The files still to be opened.
    shards: S,
    open: Option<Shard>,
    result: Result<(), InteropError>,
}

impl<'a, S: Iterator<Item = (&'a Vec<Entry>, &'a String)>> Writer<'a, S> {
    fn write(&mut self, layout: &Layout, values: &[f32]) -> Result<(), InteropError> {
        let finite = values.iter().all(|value| value.is_finite());
        for (part, (name, _)) in layout.tensors().enumerate() {
            if !finite {
                let problem = format!("\"{name}\" holds a number that is not finite");
                return Err(InteropError::Mismatch(vec![problem]));
            }
            if self.open.as_ref().is_none_or(|shard| shard.left == 0) {
                if let Some(full) = self.open.take() {
                    full.finish()?;
                }
                if let Some((entries, file)) = self.shards.next() {
                    self.open = Some(Shard::create(self.dir.join(file), entries, self.dtype)?);
                }
            }
            if let Some(shard) = &mut self.open {
                shard.write(&layout.part(part, values), self.dtype)?;
            }
        }
        Ok(())
    }
}

impl<'a, S: Iterator<Item = (&'a Vec<Entry>, &'a String)>> ModuleVisitor for Writer<'a, S> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let layout = self.names.layout(&path, &param.lazy_shape().to_vec());
        let (Ok(()), Some(layout)) = (&self.result, layout) else {
            return;
        };
        self.result = match param.val().try_into_vec_as::<f32>() {
            Ok(values) => self.write(&layout, &values),
            Err(error) => {
                let problem = format!("{path} cannot be read from the device: {error}");
                Err(InteropError::Mismatch(vec![problem]))
            }
        };
    }
}

/// A file that is being written.
struct Shard {
    path: PathBuf,
    file: BufWriter<File>,
    /// Tensors still to come.
    left: usize,
}

impl Shard {
    /// Begins the file with its header: where each tensor will stand.
    fn create(path: PathBuf, entries: &[Entry], dtype: WeightType) -> Result<Self, InteropError> {
        let mut header = Map::new();
        // Without it transformers refuses the file.
        header.insert("__metadata__".to_string(), json!({"format": "pt"}));
        let mut end = 0;
        for entry in entries {
            let offsets = [end, end + entry.bytes];
            let value =
                json!({"dtype": dtype.tag(), "shape": entry.shape, "data_offsets": offsets});
            header.insert(entry.name.clone(), value);
            end += entry.bytes;
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let begin = || {
            let mut file = BufWriter::with_capacity(1 << 18, File::create_new(&path)?);
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            Ok(file)
        };
        let file = begin().map_err(InteropError::write(&path))?;
        Ok(Self {
            path,
            file,
            left: entries.len(),
        })
    }

    fn write(&mut self, values: &[f32], dtype: WeightType) -> Result<(), InteropError> {
        self.left = self.left.saturating_sub(1);
        let written = dtype.write(&mut self.file, values);
        written.map_err(InteropError::write(&self.path))
    }

    /// Flushes to the disk itself.
    fn finish(self) -> Result<(), InteropError> {
        let file = self
            .file
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all())
            .map_err(InteropError::write(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(sizes: &[u64]) -> Vec<Entry> {
        let sizes = sizes.iter().enumerate();
        sizes
            .map(|(i, bytes)| Entry {
                name: i.to_string(),
                shape: Vec::new(),
                bytes: *bytes,
            })
            .collect()
    }

    #[test]
    fn no_file_exceeds_its_limit_but_for_a_larger_tensor() {
        let sizes = |most| {
            let shards = shards(&entries(&[4, 4, 12, 2, 4, 4]), most);
            let sizes = shards
                .iter()
                .map(|shard| shard.iter().map(|e| e.bytes).sum());
            sizes.collect::<Vec<u64>>()
        };
        assert_eq!(sizes(8), [8, 12, 6, 4]);
        assert_eq!(sizes(30), [30]);
        assert_eq!(sizes(1), [4, 4, 12, 2, 4, 4]);
    }

    #[test]
    fn rounding_is_what_is_written() {
        for value in [1.0f32, 1.01, -3.3, 1e-40, 65504.0] {
            let mut bytes = Vec::new();
            WeightType::Bf16.write(&mut bytes, &[value]).unwrap();
            let read = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            assert_eq!(read, WeightType::Bf16.round(value));
        }
        // Halfway between two: to the even one.
        assert_eq!(WeightType::Bf16.round(1.0 + 1.0 / 256.0), 1.0);
        assert_eq!(WeightType::F32.round(1.01), 1.01);
    }
}
