//! Tensors of a module in safetensors files, by module path, row-major, f32.
//!
//! Files are written slab by slab and read tensor by tensor, so neither needs host memory for more than one tensor beside the module.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use memmap2::Mmap;
use serde_json::{Map, Value, json};

use super::error::CheckpointError;
use super::manifest::{HashedFile, Written};
use super::tensor_file::{TensorFile, map};
use crate::recipe::{Moments, params};

/// Numbers that are read back from a device at once: 16 MiB.
const SLAB: usize = 1 << 22;

// Slabs are written as they lie in memory.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "safetensors are little-endian"
);

/// What of each parameter a file holds.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    /// The parameter itself, under its path.
    Weights,
    /// Its moments, under `first.` and `second.`, or `momentum.`, and its path, where it has any.
    Moments(&'a Moments),
}

impl Content<'_> {
    /// The names under which a parameter's tensors stand in the file.
    fn names<const D: usize>(&self, path: &str, param: &Param<Tensor<D>>) -> Vec<String> {
        match self {
            Self::Weights => vec![path.to_string()],
            Self::Moments(_) => match self.tensors(param).len() {
                0 => Vec::new(),
                1 => vec![momentum_name(path)],
                _ => moment_names(path).into(),
            },
        }
    }

    fn tensors<const D: usize>(&self, param: &Param<Tensor<D>>) -> Vec<Tensor<D>> {
        match self {
            Self::Weights => vec![param.val()],
            Self::Moments(moments) => [&moments.first, &moments.second, &moments.momentum]
                .into_iter()
                .filter_map(|each| each.get(param.id))
                .collect(),
        }
    }
}

fn moment_names(path: &str) -> [String; 2] {
    [format!("first.{path}"), format!("second.{path}")]
}

fn momentum_name(path: &str) -> String {
    format!("momentum.{path}")
}

/// Writes `content` of every parameter of `module` to `dir/name`.
///
/// # Errors
/// When the disk or the device fails, or a value is not finite.
pub(super) fn write<M: Module>(
    dir: &Path,
    name: &str,
    module: &M,
    content: Content<'_>,
) -> Result<Written, CheckpointError> {
    let path = dir.join(name);
    let failed = || CheckpointError::io("write", &path);
    let mut file = HashedFile::create(&path).map_err(failed())?;
    let mut index = Index {
        content,
        paths: params(module).into_iter().map(|p| (p.id, p.path)).collect(),
        header: Map::new(),
        names: HashMap::new(),
        end: 0,
    };
    module.visit(&mut index);
    let Index { header, names, .. } = index;
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    file.write(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write(&header))
        .map_err(failed())?;
    let mut writer = Writer {
        file,
        content,
        names,
        path: &path,
        result: Ok(()),
    };
    module.visit(&mut writer);
    writer.result?;
    Ok(writer.file.finish(name))
}

/// The header of a file to be written: where each tensor will stand.
struct Index<'a> {
    content: Content<'a>,
    paths: HashMap<ParamId, String>,
    header: Map<String, Value>,
    names: HashMap<ParamId, Vec<String>>,
    end: usize,
}

impl ModuleVisitor for Index<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(path) = self.paths.get(&param.id) else {
            return;
        };
        let shape = param.lazy_shape().to_vec();
        let names = self.content.names(path, param);
        for name in &names {
            let start = self.end;
            self.end += 4 * shape.iter().product::<usize>();
            let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, self.end]});
            self.header.insert(name.clone(), entry);
        }
        self.names.insert(param.id, names);
    }
}

struct Writer<'a> {
    file: HashedFile,
    content: Content<'a>,
    names: HashMap<ParamId, Vec<String>>,
    path: &'a Path,
    result: Result<(), CheckpointError>,
}

impl Writer<'_> {
    fn write<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<(), CheckpointError> {
        let names = self.names.get(&param.id).into_iter().flatten();
        for (name, tensor) in names.zip(self.content.tensors(param)) {
            let count = tensor.shape().num_elements();
            let tensor = tensor.reshape([count]);
            for start in (0..count).step_by(SLAB) {
                let slab = tensor.clone().narrow(0, start, SLAB.min(count - start));
                let failed = |error: &dyn std::fmt::Display| CheckpointError::Device {
                    tensor: name.clone(),
                    reason: error.to_string(),
                };
                let slab = slab.try_into_data_as::<f32>();
                let slab = slab.map_err(|error| failed(&error))?;
                let values = slab.as_slice::<f32>().map_err(|error| failed(&error))?;
                if !all_finite(values) {
                    let tensor = name.clone();
                    return Err(CheckpointError::NonFinite { tensor });
                }
                self.file
                    .write(slab.as_bytes())
                    .map_err(CheckpointError::io("write", self.path))?;
            }
        }
        Ok(())
    }
}

impl ModuleVisitor for Writer<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_ok() {
            self.result = self.write(param);
        }
    }
}

/// Looks at a whole chunk before it stops, so that the loop becomes vectors.
fn all_finite(values: &[f32]) -> bool {
    let finite = |chunk: &[f32]| chunk.iter().fold(true, |all, x| all & x.is_finite());
    values.chunks(1 << 12).all(finite)
}

/// Puts the weights of `dir/name` into `module`, on the devices its parameters are on.
///
/// # Errors
/// When the file is no safetensors file or holds other tensors than the module: the first one that differs is named.
pub(super) fn read_weights<M: Module>(
    dir: &Path,
    name: &str,
    module: M,
) -> Result<M, CheckpointError> {
    let path = dir.join(name);
    let map = map(&path)?;
    let file = TensorFile::parse(&path, &map)?;
    let mut paths = HashMap::new();
    let mut asked = HashSet::new();
    for param in params(&module) {
        file.check(&param.path, &param.shape)?;
        asked.insert(param.path.clone());
        paths.insert(param.id, param.path);
    }
    file.holds_only(&asked)?;
    let mut reader = Reader {
        file,
        map: &map,
        paths,
        result: Ok(()),
    };
    let module = module.map(&mut reader);
    reader.result.map(|()| module)
}

/// Reads one parameter after the other, so that no more than one is in memory twice.
struct Reader<'a> {
    file: TensorFile<'a>,
    map: &'a Mmap,
    paths: HashMap<ParamId, String>,
    result: Result<(), CheckpointError>,
}

impl ModuleMapper for Reader<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(path) = self.paths.remove(&param.id) else {
            return param;
        };
        let shape = param.lazy_shape();
        match self.file.values(&path, &shape.to_vec()) {
            Ok(values) => {
                self.file.release(&path, self.map);
                let (id, device) = (param.id, param.lazy_device());
                let new = Tensor::from_data(TensorData::new(values, shape), &device);
                param.transform_for_load(new, id)
            }
            Err(error) => {
                self.result = Err(error);
                param
            }
        }
    }
}

/// Reads the moments in `dir/name` for the parameters of `module` onto `device`.
///
/// # Errors
/// As [`read_weights`].
pub(super) fn read_moments<M: Module>(
    dir: &Path,
    name: &str,
    module: &M,
    device: &Device,
) -> Result<Moments, CheckpointError> {
    let path = dir.join(name);
    let map = map(&path)?;
    let file = TensorFile::parse(&path, &map)?;
    let mut names = HashMap::new();
    let mut asked = HashSet::new();
    for param in params(module) {
        let [first, second] = moment_names(&param.path);
        let momentum = momentum_name(&param.path);
        let found = match (file.has(&first), file.has(&momentum)) {
            (true, _) => vec![first, second],
            (false, true) => vec![momentum],
            (false, false) => Vec::new(),
        };
        for name in &found {
            file.check(name, &param.shape)?;
            asked.insert(name.clone());
        }
        names.insert(param.id, found);
    }
    file.holds_only(&asked)?;
    let mut reader = MomentReader {
        file,
        map: &map,
        names,
        device,
        moments: Moments::default(),
        result: Ok(()),
    };
    module.visit(&mut reader);
    reader.result.map(|()| reader.moments)
}

/// Reads the moments of one parameter after the other.
struct MomentReader<'a> {
    file: TensorFile<'a>,
    map: &'a Mmap,
    /// Of each parameter both of AdamW's moments, or Muon's momentum.
    names: HashMap<ParamId, Vec<String>>,
    device: &'a Device,
    moments: Moments,
    result: Result<(), CheckpointError>,
}

impl MomentReader<'_> {
    fn read<const D: usize>(&mut self, param: &Param<Tensor<D>>) -> Result<(), CheckpointError> {
        let names = self.names.remove(&param.id).unwrap_or_default();
        let shape = param.lazy_shape();
        let moments = &mut self.moments;
        let slots = match names.len() {
            1 => vec![&mut moments.momentum],
            _ => vec![&mut moments.first, &mut moments.second],
        };
        for (slot, name) in slots.into_iter().zip(names) {
            let values = self.file.values(&name, &shape.to_vec())?;
            self.file.release(&name, self.map);
            let data = TensorData::new(values, shape.clone());
            slot.register(param.id, Tensor::<D>::from_data(data, self.device));
        }
        Ok(())
    }
}

impl ModuleVisitor for MomentReader<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.result.is_ok() {
            self.result = self.read(param);
        }
    }
}
