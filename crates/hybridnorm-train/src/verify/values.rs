//! Tensors as plain numbers, named and oriented as in the reference.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use hybridnorm_interop::{Array, NameMap};

/// A tensor's numbers, row-major.
pub fn values_of<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// A tensor's shape and numbers.
pub fn array_of<const D: usize>(tensor: Tensor<D>) -> Array {
    Array {
        shape: tensor.dims().to_vec(),
        values: values_of(tensor),
    }
}

/// The gradient of every parameter, under the file's names and in its orientation; `None` where there is none.
pub fn gradients<M: Module>(
    module: &M,
    grads: &GradientsParams,
    names: &NameMap,
) -> Vec<(String, Option<Array>)> {
    collect(module, Some(grads), names)
}

/// The value of every parameter, under the file's names and in its orientation.
pub fn parameters<M: Module>(module: &M, names: &NameMap) -> Vec<(String, Array)> {
    collect(module, None, names)
        .into_iter()
        .filter_map(|(name, array)| array.map(|array| (name, array)))
        .collect()
}

fn collect<M: Module>(
    module: &M,
    grads: Option<&GradientsParams>,
    names: &NameMap,
) -> Vec<(String, Option<Array>)> {
    let mut collector = Collector {
        grads,
        names,
        path: Vec::new(),
        found: Vec::new(),
    };
    module.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    grads: Option<&'a GradientsParams>,
    names: &'a NameMap,
    path: Vec<String>,
    found: Vec<(String, Option<Array>)>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        let array = match self.grads {
            Some(grads) => grads.get::<D>(param.id).map(array_of),
            None => Some(array_of(param.val())),
        };
        let layout = self.names.layout(&path, &param.lazy_shape().to_vec());
        match (layout, array) {
            (Some(layout), Some(array)) => {
                let parts = layout.split(&array).into_iter();
                self.found
                    .extend(parts.map(|(name, part)| (name, Some(part))));
            }
            (Some(layout), None) => {
                let names = layout.names().map(|name| (name.to_string(), None));
                self.found.extend(names);
            }
            (None, array) => self.found.push((path, array)),
        }
    }
}
