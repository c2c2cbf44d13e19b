//! Memory-mapped safetensors files.

use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::{TensorData, bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata, SafeTensors};

use crate::error::InteropError;

/// A tensor's numbers in double precision, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Vec<f64>,
}

impl Array {
    /// The matrix with rows and columns exchanged; other ranks are returned as they are.
    pub fn transposed(self) -> Self {
        let [rows, columns] = self.shape[..] else {
            return self;
        };
        let values = (0..columns)
            .flat_map(|c| (0..rows).map(move |r| (r, c)))
            .map(|(r, c)| self.values[r * columns + c])
            .collect();
        Self {
            shape: vec![columns, rows],
            values,
        }
    }

    /// The numbers in single precision, as Burn takes them.
    pub fn to_f32(&self) -> TensorData {
        let values: Vec<f32> = self.values.iter().map(|x| *x as f32).collect();
        TensorData::new(values, self.shape.clone())
    }

    /// The numbers as integers (token ids), as Burn takes them.
    pub fn to_i64(&self) -> TensorData {
        let values: Vec<i64> = self.values.iter().map(|x| *x as i64).collect();
        TensorData::new(values, self.shape.clone())
    }
}

/// An open safetensors file. Tensors are read from the memory map when they are asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    header: usize,
    metadata: Metadata,
}

impl TensorFile {
    /// Opens `path` and checks its header.
    ///
    /// # Errors
    /// When the file cannot be read or is not a safetensors file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, InteropError> {
        let path = path.as_ref().to_path_buf();
        let read = |source| InteropError::Read {
            path: path.clone(),
            source,
        };
        let file = File::open(&path).map_err(read)?;
        // SAFETY: the map is only read. A file that another process cuts short while it is open can still end the
        // program, as with every memory map.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        let format = |reason: safetensors::SafeTensorError| InteropError::Format {
            path: path.clone(),
            expected: "safetensors",
            reason: reason.to_string(),
        };
        SafeTensors::deserialize(&map).map_err(format)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(format)?;
        Ok(Self {
            path,
            map,
            header: header + 8,
            metadata,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensor names, in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// The shape of the tensor called `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| &info.shape[..])
    }

    /// Reads one tensor in double precision; exact for every type but 64-bit integers beyond 2⁵³.
    ///
    /// # Errors
    /// When there is no such tensor, or its type is not a plain number.
    pub fn array(&self, name: &str) -> Result<Array, InteropError> {
        let info = self
            .metadata
            .info(name)
            .ok_or_else(|| InteropError::Missing {
                path: self.path.clone(),
                name: name.to_string(),
            })?;
        let (start, end) = info.data_offsets;
        let bytes = &self.map[self.header + start..self.header + end];
        let values = decode(info.dtype, bytes).ok_or_else(|| InteropError::Dtype {
            path: self.path.clone(),
            name: name.to_string(),
            dtype: format!("{:?}", info.dtype),
        })?;
        Ok(Array {
            shape: info.shape.clone(),
            values,
        })
    }
}

/// Little-endian numbers of type `dtype`, or `None` where the type is not read here.
fn decode(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes
            .as_chunks::<N>()
            .0
            .iter()
            .map(|chunk| read(*chunk))
            .collect()
    }
    Some(match dtype {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f32::from_le_bytes(b).into()),
        Dtype::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f64()),
        Dtype::BF16 => each(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| i32::from_le_bytes(b).into()),
        Dtype::U8 | Dtype::BOOL => each(bytes, |b| u8::from_le_bytes(b).into()),
        _ => return None,
    })
}
