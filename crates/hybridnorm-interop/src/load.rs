//! Named tensors into a module.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

use crate::error::InteropError;
use crate::names::NameMap;
use crate::tensors::Tensors;

/// Replaces every parameter of `module` by the tensors that `names` says it lies in, one after the other: beside the parameters there is
/// never more than one of them in memory a second time.
///
/// # Errors
/// As [`check`], and where a value is not finite in f32; the module is dropped then.
pub fn load<M: Module>(
    module: M,
    tensors: &(impl Tensors + ?Sized),
    names: &NameMap,
) -> Result<M, InteropError> {
    check(&module, tensors, names)?;
    let mut loader = Loader {
        tensors,
        names,
        path: Vec::new(),
        problems: Vec::new(),
    };
    let module = module.map(&mut loader);
    match loader.problems.is_empty() {
        true => Ok(module),
        false => Err(InteropError::Mismatch(loader.problems)),
    }
}

/// Holds the tensors against what `module` needs, without reading a number.
///
/// # Errors
/// Names every tensor that is missing, left over, or of another shape or type.
pub fn check<M: Module>(
    module: &M,
    tensors: &(impl Tensors + ?Sized),
    names: &NameMap,
) -> Result<(), InteropError> {
    let mut checker = Checker {
        tensors,
        names,
        path: Vec::new(),
        used: BTreeSet::new(),
        problems: Vec::new(),
    };
    module.visit(&mut checker);
    let mut problems = checker.problems;
    for name in tensors.names() {
        if !checker.used.contains(&name) && !names.ignores(&name) {
            problems.push(format!("\"{name}\" is left over"));
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(InteropError::Mismatch(problems)),
    }
}

struct Checker<'a, T: ?Sized> {
    tensors: &'a T,
    names: &'a NameMap,
    path: Vec<String>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl<T: Tensors + ?Sized> ModuleVisitor for Checker<'_, T> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let Some(layout) = self.names.layout(&path, &param.lazy_shape().to_vec()) else {
            return self.problems.push(format!("{path} has no name there"));
        };
        for (name, shape) in layout.tensors() {
            if !self.tensors.contains(name) {
                let problem = format!("\"{name}\" (for {path}) is missing");
                self.problems.push(problem);
                continue;
            }
            self.used.insert(name.to_string());
            match self.tensors.view(name) {
                Err(error) => self.problems.push(error.to_string()),
                Ok(view) if !view.is_float() => self.problems.push(format!(
                    "\"{name}\" holds {:?}, parameters are F16, BF16, F32 or F64",
                    view.dtype
                )),
                Ok(view) if view.shape != shape => self.problems.push(format!(
                    "\"{name}\" has shape {:?}, the model needs {shape:?}",
                    view.shape
                )),
                Ok(_) => {}
            }
        }
    }
}

struct Loader<'a, T: ?Sized> {
    tensors: &'a T,
    names: &'a NameMap,
    path: Vec<String>,
    problems: Vec<String>,
}

impl<T: Tensors + ?Sized> Loader<'_, T> {
    /// The values for the parameter at the current path, in its own orientation.
    fn fetch(&mut self, shape: &[usize]) -> Result<Vec<f32>, String> {
        let path = self.path.join(".");
        let layout = self.names.layout(&path, shape);
        let layout = layout.ok_or_else(|| format!("{path} has no name there"))?;
        let values = layout.fill(|name, place| {
            let view = self.tensors.view(name).map_err(|error| error.to_string())?;
            place(view)?;
            self.tensors.release(name);
            Ok(())
        })?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => {
                let names: Vec<&str> = layout.tensors().map(|(name, _)| name).collect();
                let names = names.join("\", \"");
                Err(format!("\"{names}\" holds a value that is not finite"))
            }
        }
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
