//! A safetensors file, and what is wrong with it.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;
use safetensors::tensor::{Dtype, SafeTensors};

use super::error::CheckpointError;

/// The file, mapped into memory: the system reads what is touched, and takes it back when it likes.
pub(super) fn map(path: &Path) -> Result<Mmap, CheckpointError> {
    let file = fs::File::open(path).map_err(CheckpointError::io("read", path))?;
    // SAFETY: the map is only read. A file that another process cuts short meanwhile can end the program, as with every memory map; a
    // checkpoint is never written to once it has its name.
    unsafe { Mmap::map(&file) }.map_err(CheckpointError::io("read", path))
}

/// A parsed safetensors file that says which of its tensors is wrong.
pub(super) struct TensorFile<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl<'a> TensorFile<'a> {
    /// Reads the header of the file at `path`, whose content is `bytes`.
    pub(super) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self, CheckpointError> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| CheckpointError::Io {
            action: "understand",
            path: path.to_path_buf(),
            source: io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        })?;
        Ok(Self { path, tensors })
    }

    /// Whether it has such a tensor.
    pub(super) fn has(&self, tensor: &str) -> bool {
        self.tensors.tensor(tensor).is_ok()
    }

    /// The values of a tensor that is as expected.
    pub(super) fn values(
        &self,
        tensor: &str,
        expected: &[usize],
    ) -> Result<Vec<f32>, CheckpointError> {
        let values = self.check(tensor, expected)?.as_chunks::<4>().0.iter();
        Ok(values.map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// Gives a tensor's pages back to the system.
    pub(super) fn release(&self, tensor: &str, map: &Mmap) {
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
    pub(super) fn check(
        &self,
        tensor: &str,
        expected: &[usize],
    ) -> Result<&'a [u8], CheckpointError> {
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
    pub(super) fn holds_only(&self, asked: &HashSet<String>) -> Result<(), CheckpointError> {
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
