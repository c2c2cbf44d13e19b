//! Memory-mapped safetensors files.

use std::fs::File;
use std::ops::Deref;
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

/// A tensor as it lies in a file.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The type of its numbers.
    pub dtype: Dtype,
    /// Sizes of the dimensions.
    pub shape: &'a [usize],
    /// The numbers, little-endian, row-major.
    pub bytes: &'a [u8],
}

/// Tensors by name, whatever they lie in.
pub trait Tensors {
    /// All names.
    fn names(&self) -> Vec<String>;

    /// Whether there is a tensor called `name`.
    fn contains(&self, name: &str) -> bool;

    /// The tensor called `name`.
    ///
    /// # Errors
    /// When there is none, or its type is not a plain number.
    fn view(&self, name: &str) -> Result<View<'_>, InteropError>;

    /// Says that the tensor called `name` has been read: its memory may go back to the system.
    fn release(&self, name: &str);
}

/// The bytes of a file.
#[derive(Debug)]
enum Bytes {
    /// Memory-mapped.
    Map(Mmap),
    /// Read already.
    Held(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Held(bytes) => bytes,
        }
    }
}

/// An open safetensors file. Tensors are read from the memory map when they are asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Bytes,
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
        Self::of(path, Bytes::Map(map))
    }

    /// The contents of a safetensors file; `path` is what it is called.
    ///
    /// # Errors
    /// When it is not a safetensors file.
    pub fn from_bytes(path: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Self, InteropError> {
        Self::of(path.as_ref().to_path_buf(), Bytes::Held(bytes))
    }

    fn of(path: PathBuf, bytes: Bytes) -> Result<Self, InteropError> {
        let format = |reason: safetensors::SafeTensorError| InteropError::Format {
            path: path.clone(),
            expected: "safetensors",
            reason: reason.to_string(),
        };
        SafeTensors::deserialize(&bytes).map_err(format)?;
        let (header, metadata) = SafeTensors::read_metadata(&bytes).map_err(format)?;
        Ok(Self {
            path,
            bytes,
            header: header + 8,
            metadata,
        })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The shape of the tensor called `name`.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| &info.shape[..])
    }

    /// All tensor names, in the order of their bytes.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.metadata.info(name).is_some()
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        (self.bytes.len() - self.header) as u64
    }

    /// Where a tensor's bytes lie in the file.
    fn place(&self, name: &str) -> Option<std::ops::Range<usize>> {
        let (start, end) = self.metadata.info(name)?.data_offsets;
        Some(self.header + start..self.header + end)
    }

    /// Reads one tensor in double precision; exact for every type but 64-bit integers beyond 2⁵³.
    ///
    /// # Errors
    /// When there is no such tensor, or its type is not a plain number.
    pub fn array(&self, name: &str) -> Result<Array, InteropError> {
        let view = self.view(name)?;
        struct Collect;
        impl Numbers for Collect {
            type Output = Vec<f64>;
            fn of<const N: usize>(
                self,
                numbers: &[[u8; N]],
                read: impl Fn([u8; N]) -> f64 + Copy,
            ) -> Vec<f64> {
                numbers.iter().map(|number| read(*number)).collect()
            }
        }
        Ok(Array {
            shape: view.shape.to_vec(),
            values: view.numbers(Collect).unwrap_or_default(),
        })
    }
}

impl Tensors for TensorFile {
    fn names(&self) -> Vec<String> {
        self.names()
    }

    fn contains(&self, name: &str) -> bool {
        self.contains(name)
    }

    fn view(&self, name: &str) -> Result<View<'_>, InteropError> {
        let (info, place) = self
            .metadata
            .info(name)
            .zip(self.place(name))
            .ok_or_else(|| InteropError::Missing {
                path: self.path.clone(),
                name: name.to_string(),
            })?;
        let view = View {
            dtype: info.dtype,
            shape: &info.shape,
            bytes: &self.bytes[place],
        };
        match view.is_readable() {
            true => Ok(view),
            false => Err(InteropError::Dtype {
                path: self.path.clone(),
                name: name.to_string(),
                dtype: format!("{:?}", info.dtype),
            }),
        }
    }

    fn release(&self, name: &str) {
        #[cfg(unix)]
        if let (Bytes::Map(map), Some(place)) = (&self.bytes, self.place(name)) {
            // SAFETY: the pages of a shared map that nobody writes to hold what the file holds: they are read again when they are
            // touched again. A refusal leaves them where they are.
            let _ = unsafe {
                map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    place.start,
                    place.len(),
                )
            };
        }
        #[cfg(not(unix))]
        let _ = name;
    }
}

/// What is done with the numbers of a tensor, whatever their type.
pub(crate) trait Numbers {
    /// What comes of it.
    type Output;
    /// `numbers` as they lie in the file; `read` makes one of them a number.
    fn of<const N: usize>(
        self,
        numbers: &[[u8; N]],
        read: impl Fn([u8; N]) -> f64 + Copy,
    ) -> Self::Output;
}

impl View<'_> {
    /// Whether the type is read here.
    fn is_readable(&self) -> bool {
        struct Nothing;
        impl Numbers for Nothing {
            type Output = ();
            fn of<const N: usize>(self, _: &[[u8; N]], _: impl Fn([u8; N]) -> f64 + Copy) {}
        }
        self.numbers(Nothing).is_some()
    }

    /// Whether the numbers are what parameters are.
    pub(crate) fn is_float(&self) -> bool {
        matches!(
            self.dtype,
            Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16
        )
    }

    /// Hands the numbers to `work`; `None` where the type is not read here.
    pub(crate) fn numbers<W: Numbers>(&self, work: W) -> Option<W::Output> {
        let bytes = self.bytes;
        Some(match self.dtype {
            Dtype::F64 => work.of(bytes.as_chunks().0, f64::from_le_bytes),
            Dtype::F32 => work.of(bytes.as_chunks().0, |b| f32::from_le_bytes(b).into()),
            Dtype::F16 => work.of(bytes.as_chunks().0, |b| f16::from_le_bytes(b).to_f64()),
            Dtype::BF16 => work.of(bytes.as_chunks().0, |b| bf16::from_le_bytes(b).to_f64()),
            Dtype::I64 => work.of(bytes.as_chunks().0, |b| i64::from_le_bytes(b) as f64),
            Dtype::I32 => work.of(bytes.as_chunks().0, |b| i32::from_le_bytes(b).into()),
            Dtype::U8 | Dtype::BOOL => work.of(bytes.as_chunks().0, |b: [u8; 1]| b[0].into()),
            _ => return None,
        })
    }
}
