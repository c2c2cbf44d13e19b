//! Named tensors into a module.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::error::InteropError;
use crate::names::NameMap;
use crate::tensors::TensorFile;

/// Replaces every parameter of `module` by the tensors that `names` says it lies in.
///
/// # Errors
/// Names every tensor that is missing, left over, or of another shape; the module is dropped then.
pub fn load<M: Module>(module: M, file: &TensorFile, names: &NameMap) -> Result<M, InteropError> {
    let mut loader = Loader {
        file,
        names,
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

struct Loader<'a> {
    file: &'a TensorFile,
    names: &'a NameMap,
    path: Vec<String>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl Loader<'_> {
    /// The values for the parameter at the current path, in its own orientation.
    fn fetch(&mut self, shape: &[usize]) -> Result<TensorData, String> {
        let path = self.path.join(".");
        let layout = self.names.layout(&path, shape);
        let layout = layout.ok_or_else(|| format!("{path} has no name there"))?;
        let joined = layout.join(|name| {
            if !self.file.contains(name) {
                return Err(format!("\"{name}\" (for {path}) is missing"));
            }
            self.used.insert(name.to_string());
            self.file.array(name).map_err(|error| error.to_string())
        })?;
        Ok(joined.to_f32())
    }
}

impl ModuleMapper for Loader<'_> {
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
