//! Named tensors into a module.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::error::InteropError;
use crate::tensors::TensorFile;

/// How a module's parameter is called in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTensor {
    /// The name in the file.
    pub name: String,
    /// The file holds the matrix as `[out, in]` (PyTorch), Burn as `[in, out]`.
    pub transposed: bool,
}

/// Replaces every parameter of `module` by the tensor that `name_of(path)` names in `file`.
///
/// # Errors
/// Names every tensor that is missing, left over, or of another shape; the module is dropped then.
pub fn load<M: Module>(
    module: M,
    file: &TensorFile,
    name_of: impl Fn(&str) -> Option<NamedTensor>,
) -> Result<M, InteropError> {
    let mut loader = Loader {
        file,
        name_of,
        path: Vec::new(),
        used: BTreeSet::new(),
        problems: Vec::new(),
    };
    let module = module.map(&mut loader);
    let mut problems = loader.problems;
    for name in file.names() {
        if !loader.used.contains(&name) {
            problems.push(format!("\"{name}\" is left over"));
        }
    }
    if problems.is_empty() {
        Ok(module)
    } else {
        Err(InteropError::Mismatch(problems))
    }
}

struct Loader<'a, N> {
    file: &'a TensorFile,
    name_of: N,
    path: Vec<String>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl<N: Fn(&str) -> Option<NamedTensor>> Loader<'_, N> {
    /// The values for the parameter at the current path, in its own orientation.
    fn fetch(&mut self, shape: &[usize]) -> Result<TensorData, String> {
        let path = self.path.join(".");
        let NamedTensor { name, transposed } =
            (self.name_of)(&path).ok_or_else(|| format!("{path} has no name there"))?;
        if !self.file.contains(&name) {
            return Err(format!("\"{name}\" (for {path}) is missing"));
        }
        let array = self.file.array(&name).map_err(|error| error.to_string())?;
        self.used.insert(name.clone());
        let array = if transposed {
            array.transposed()
        } else {
            array
        };
        if array.shape != shape {
            return Err(format!(
                "\"{name}\" has shape {:?}, {path} needs {shape:?}{}",
                array.shape,
                if transposed {
                    " (both as [in, out])"
                } else {
                    ""
                }
            ));
        }
        Ok(array.to_f32())
    }
}

impl<N: Fn(&str) -> Option<NamedTensor>> ModuleMapper for Loader<'_, N> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.fetch(&param.lazy_shape().to_vec()) {
            Ok(data) => param.map(|old| {
                let (device, requires_grad) = (old.device(), old.is_require_grad());
                let new = Tensor::from_data(data, &device).detach();
                if requires_grad {
                    new.require_grad()
                } else {
                    new
                }
            }),
            Err(problem) => {
                self.problems.push(problem);
                param
            }
        }
    }
}
