//! Tensors as plain numbers, named and oriented as in the reference.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use hybridnorm_interop::Array;
use hybridnorm_interop::official::name_of;

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

/// The gradient of every parameter, under the reference's name and in its orientation.
pub fn gradients<M: Module>(module: &M, grads: &GradientsParams) -> Vec<(String, Option<Array>)> {
    collect(module, Some(grads))
}

/// The value of every parameter, under the reference's name and in its orientation.
pub fn parameters<M: Module>(module: &M) -> Vec<(String, Array)> {
    collect(module, None)
        .into_iter()
        .filter_map(|(name, array)| array.map(|array| (name, array)))
        .collect()
}

fn collect<M: Module>(module: &M, grads: Option<&GradientsParams>) -> Vec<(String, Option<Array>)> {
    let mut collector = Collector {
        grads,
        path: Vec::new(),
        found: Vec::new(),
    };
    module.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    grads: Option<&'a GradientsParams>,
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
        let tensor = match self.grads {
            Some(grads) => grads.get::<D>(param.id),
            None => Some(param.val()),
        };
        let named = name_of(&path);
        let array = tensor.map(array_of).map(|array| match &named {
            Some(named) if named.transposed => array.transposed(),
            _ => array,
        });
        self.found
            .push((named.map_or(path, |named| named.name), array));
    }
}
