//! Named tensors into a module.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use crate::error::InteropError;
use crate::names::NameMap;
use crate::tensors::Tensors;

/// Replaces every parameter of `module` by the tensors that `names` says it lies in, one after the other: beside the parameters there is
/// never more than one of them in memory a second time.
///
/// # Errors
/// Names every tensor that is missing, left over, or of another shape; the module is dropped then.
pub fn load<M: Module>(
    module: M,
    tensors: &(impl Tensors + ?Sized),
    names: &NameMap,
) -> Result<M, InteropError> {
    let mut loader = Loader {
        tensors,
        names,
        path: Vec::new(),
        used: BTreeSet::new(),
        problems: Vec::new(),
    };
    let module = module.map(&mut loader);
    let mut problems = loader.problems;
    for name in tensors.names() {
        if !loader.used.contains(&name) && !names.ignores(&name) {
            problems.push(format!("\"{name}\" is left over"));
        }
    }
    if problems.is_empty() {
        Ok(module)
    } else {
        Err(InteropError::Mismatch(problems))
    }
}

struct Loader<'a, T: ?Sized> {
    tensors: &'a T,
    names: &'a NameMap,
    path: Vec<String>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl<T: Tensors + ?Sized> Loader<'_, T> {
    /// The values for the parameter at the current path, in its own orientation.
    fn fetch(&mut self, shape: &[usize]) -> Result<Vec<f32>, String> {
        let path = self.path.join(".");
        let layout = self.names.layout(&path, shape);
        let layout = layout.ok_or_else(|| format!("{path} has no name there"))?;
        let values = layout.fill(|name| {
            if !self.tensors.contains(name) {
                return Err(format!("\"{name}\" (for {path}) is missing"));
            }
            self.used.insert(name.to_string());
            self.tensors.view(name).map_err(|error| error.to_string())
        });
        for name in layout.names() {
            self.tensors.release(name);
        }
        values
    }
}

impl<T: Tensors + ?Sized> ModuleMapper for Loader<'_, T> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.lazy_shape();
        match self.fetch(&shape.to_vec()) {
            Ok(values) => {
                let (id, device) = (param.id, param.lazy_device());
                let new = Tensor::from_data(TensorData::new(values, shape), &device);
                param.transform_for_load(new, id)
            }
            Err(problem) => {
                self.problems.push(problem);
                param
            }
        }
    }
}
