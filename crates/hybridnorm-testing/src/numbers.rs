//! Tensors, parameters and gradients as plain numbers.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor};

/// A tensor's numbers, row-major.
pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

/// The largest absolute difference of two lists; NaN where there is one.
///
/// # Panics
/// When one is longer.
pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "not of one length");
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(
        0.0,
        |most, d| if d.is_nan() { d } else { f64::max(most, d) },
    )
}

/// The largest absolute value; NaN where there is one.
pub fn largest(values: &[f64]) -> f64 {
    largest_difference(values, &vec![0.0; values.len()])
}

/// Every parameter by path.
pub fn parameters<M: Module>(module: &M) -> BTreeMap<String, Vec<f64>> {
    collect(module, None)
}

/// The gradient of every parameter that has one, by path.
pub fn gradients<M: Module>(module: &M, grads: &GradientsParams) -> BTreeMap<String, Vec<f64>> {
    collect(module, Some(grads))
}

/// The module with parameters of another float type.
pub fn cast<M: Module>(module: M, dtype: FloatDType) -> M {
    struct Cast(FloatDType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| match x.device().is_autodiff() {
                true => Tensor::from_inner(x.inner().cast(self.0)).require_grad(),
                false => x.cast(self.0),
            })
        }
    }
    module.map(&mut Cast(dtype))
}

fn collect<M: Module>(module: &M, grads: Option<&GradientsParams>) -> BTreeMap<String, Vec<f64>> {
    let mut collector = Collector {
        grads,
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    module.visit(&mut collector);
    collector.found
}

struct Collector<'a> {
    grads: Option<&'a GradientsParams>,
    path: Vec<String>,
    found: BTreeMap<String, Vec<f64>>,
}

impl ModuleVisitor for Collector<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.grads {
            Some(grads) => grads.get::<D>(param.id),
            None => Some(param.val()),
        };
        if let Some(tensor) = tensor {
            self.found.insert(self.path.join("."), values(tensor));
        }
    }
}
