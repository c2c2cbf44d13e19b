//! Tensors of a module in safetensors files, by module path, row-major, f32.
//!
//! Files are written slab by slab and read tensor by tensor, so neither needs host memory for more than one tensor beside the module.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData};
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};

use super::error::CheckpointError;
use super::manifest::{FileEntry, HashedFile};
use crate::recipe::{Moments, params};

/// Numbers that are read back from a device at once: 16 MiB.
const SLAB: usize = 1 << 22;

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

/// Writes `content` of every parameter of `module` to `dir/name`, to the disk itself.
///
/// # Errors
/// When the disk or the device fails, or a value is not finite.
pub(super) fn write<M: Module>(
    dir: &Path,
    name: &str,
    module: &M,
    content: Content<'_>,
) -> Result<FileEntry, CheckpointError> {
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
    file.write_all(&(header.len() as u64).to_le_bytes())
        .and_then(|()| file.write_all(&header))
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
    writer.file.finish(name).map_err(failed())
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
                let values: Vec<f32> =
                    slab.try_into_vec_as()
                        .map_err(|error| CheckpointError::Device {
                            tensor: name.clone(),
                            reason: error.to_string(),
                        })?;
                if values.iter().any(|value| !value.is_finite()) {
                    let tensor = name.clone();
                    return Err(CheckpointError::NonFinite { tensor });
                }
                write_le(&mut self.file, &values)
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

fn write_le(out: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 << 14);
    for chunk in values.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
        out.write_all(&bytes)?;
    }
    Ok(())
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

/// The file, mapped into memory: the system reads what is touched, and takes it back when it likes.
fn map(path: &Path) -> Result<Mmap, CheckpointError> {
    let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
    // SAFETY: the map is only read. A file that another process cuts short meanwhile can end the program, as with every memory map; a
    // checkpoint is never written to once it has its name.
    unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("read", path))
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
    let bytes = fs::read(&path).map_err(CheckpointError::io("read", &path))?;
    let file = TensorFile::parse(&path, &bytes)?;
    let mut reader = MomentReader {
        values: HashMap::new(),
        device,
        moments: Moments::default(),
    };
    let mut asked = HashSet::new();
    for param in params(module) {
        let [first, second] = moment_names(&param.path);
        if file.tensors.tensor(&first).is_ok() {
            let pair = vec![
                file.values(&first, &param.shape)?,
                file.values(&second, &param.shape)?,
            ];
            reader.values.insert(param.id, pair);
            asked.extend([first, second]);
        }
        let momentum = momentum_name(&param.path);
        if file.tensors.tensor(&momentum).is_ok() {
            let values = file.values(&momentum, &param.shape)?;
            reader.values.insert(param.id, vec![values]);
            asked.insert(momentum);
        }
    }
    file.holds_only(&asked)?;
    module.visit(&mut reader);
    Ok(reader.moments)
}

struct MomentReader<'a> {
    /// Both of AdamW's moments, or Muon's momentum.
    values: HashMap<ParamId, Vec<Vec<f32>>>,
    device: &'a Device,
    moments: Moments,
}

impl ModuleVisitor for MomentReader<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(values) = self.values.remove(&param.id) else {
            return;
        };
        let tensors = values.into_iter().map(|values| {
            Tensor::<D>::from_data(TensorData::new(values, param.lazy_shape()), self.device)
        });
        let moments = &mut self.moments;
        let slots = match tensors.len() {
            1 => vec![&mut moments.momentum],
            _ => vec![&mut moments.first, &mut moments.second],
        };
        for (slot, tensor) in slots.into_iter().zip(tensors) {
            slot.register(param.id, tensor);
        }
    }
}

/// A parsed safetensors file that says which of its tensors is wrong.
struct TensorFile<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl<'a> TensorFile<'a> {
    fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, CheckpointError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| CheckpointError::Io {
            action: "understand",
            path: path.to_path_buf(),
            source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        })?;
        Ok(Self { path, tensors })
    }

    fn values(&self, tensor: &str, expected: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let values = self.check(tensor, expected)?.as_chunks::<4>().0.iter();
        Ok(values.map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// Gives a tensor's pages back to the system.
    fn release(&self, tensor: &str, map: &Mmap) {
        #[cfg(unix)]
        if let Ok(view) = self.tensors.tensor(tensor) {
            let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
            // SAFETY: the pages of a map that nobody writes to hold what the file holds: they are read again when they are touched again.
            let _ = unsafe {
                map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, view.data().len())
            };
        }
        #[cfg(not(unix))]
        let _ = (tensor, map);
    }

    /// The bytes of a tensor that is as expected.
    fn check(&self, tensor: &str, expected: &[usize]) -> Result<&'a [u8], CheckpointError> {
        let wrong = |problem: String| CheckpointError::Tensor {
            file: self.path.to_path_buf(),
            tensor: tensor.to_string(),
            problem,
        };
        let view = self.tensors.tensor(tensor).map_err(|_| {
            wrong("is missing, but the model needs it: a checkpoint of another model".to_string())
        })?;
        if view.shape() != expected {
            return Err(CheckpointError::Shape {
                file: self.path.to_path_buf(),
                tensor: tensor.to_string(),
                found: view.shape().to_vec(),
                expected: expected.to_vec(),
            });
        }
        if view.dtype() != Dtype::F32 {
            return Err(wrong(format!("is {:?}, but F32 is expected", view.dtype())));
        }
        Ok(view.data())
    }

    /// Refuses a file with tensors beside those in `asked`.
    fn holds_only(&self, asked: &HashSet<String>) -> Result<(), CheckpointError> {
        let mut names = self.tensors.names();
        names.sort_unstable();
        match names.into_iter().find(|name| !asked.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(CheckpointError::Tensor {
                file: self.path.to_path_buf(),
                tensor: name.to_string(),
                problem: "is not in the model: a checkpoint of another model".to_string(),
            }),
        }
    }
}
