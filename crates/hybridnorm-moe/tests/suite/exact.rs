//! A sparse layer written out: every expert for every token, in f64 on the CPU, with the weights of the experts that were not chosen
//! at zero. Plain operations only, so that nothing of what is tested has a part in it.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Int, Tensor, TensorData, activation};
use hybridnorm_core::Activation;
use hybridnorm_moe::{RouterConfig, ScoreFunction};
use hybridnorm_testing::{open, values};

/// Parameters by path, as `hybridnorm_testing::parameters` gives them, and their gradients.
pub type Values = BTreeMap<String, Vec<f64>>;

/// The layer's output and gradients for the loss Σ seen·output.
pub struct Exact {
    pub output: Vec<f64>,
    pub weights: Vec<f64>,
    pub dx: Vec<f64>,
    /// Gradients by path.
    pub gradients: Values,
}

/// Which experts each token uses is given, so that ties and near ties are not decided twice.
pub struct Layer<'a> {
    pub router: &'a RouterConfig,
    pub d_model: usize,
    pub d_ff: usize,
    pub activation: Activation,
    pub parameters: &'a Values,
    /// `[tokens][top_k]`
    pub chosen: &'a [i64],
    /// One for each copy that is computed, `[tokens][top_k]`.
    pub kept: &'a [f64],
}

impl Layer<'_> {
    pub fn run(&self, x: &[f64], seen: &[f64]) -> Exact {
        let device = &open("flex").clone().autodiff();
        let (e, k, d) = (self.router.n_experts, self.router.top_k, self.d_model);
        let n = x.len() / d;
        let leaf = |path: &str| self.leaf(path, device);
        let x = tensor(x, [n, d], device).require_grad();
        let (router, gate, up, down) = (
            leaf("router.linear.weight"),
            leaf("experts.gate"),
            leaf("experts.up"),
            leaf("experts.down"),
        );
        let leaves = [
            ("router.linear.weight", router.clone()),
            ("experts.gate", gate.clone()),
            ("experts.up", up.clone()),
            ("experts.down", down.clone()),
        ];
        let logits = x.clone().matmul(router);
        let scores = match self.router.score {
            ScoreFunction::Softmax => activation::softmax(logits, 1),
            ScoreFunction::Sigmoid => activation::sigmoid(logits),
        };
        let chosen =
            Tensor::<2, Int>::from_data(TensorData::new(self.chosen.to_vec(), [n, k]), device);
        let mut weights = scores.gather(1, chosen.clone());
        if self.router.renormalize {
            weights = weights.clone() / weights.sum_dim(1);
        }
        let kept = tensor(self.kept, [n, k], device);
        let mut output = Tensor::<2>::zeros_like(&x);
        for expert in 0..e {
            let mine = chosen
                .clone()
                .equal_elem(expert as i64)
                .float()
                .cast(burn::tensor::FloatDType::F64);
            let weight = (weights.clone() * mine * kept.clone()).sum_dim(1);
            let rows = |w: &Tensor<2>, width: usize| w.clone().narrow(0, expert * width, width);
            let gate = x.clone().matmul(rows(&gate, d));
            let gate = match self.activation {
                Activation::SwiGlu => activation::silu(gate),
                Activation::GeGlu => activation::gelu_approximate(gate),
                Activation::GeGluExact => activation::gelu(gate),
                Activation::ReGlu => gate.clamp_min(0.0),
                plain => panic!("experts are gated, not {plain}"),
            };
            let h = gate * x.clone().matmul(rows(&up, d));
            output = output + h.matmul(rows(&down, self.d_ff)) * weight;
        }
        let loss = (output.clone() * tensor(seen, [n, d], device)).sum();
        let gradients = loss.backward();
        let gradient = |x: &Tensor<2>, gradients: &Gradients| {
            x.grad(gradients)
                .map_or_else(|| vec![0.0; x.shape().num_elements()], values)
        };
        Exact {
            output: values(output),
            weights: values(weights),
            dx: gradient(&x, &gradients),
            gradients: leaves
                .iter()
                .map(|(path, leaf)| ((*path).to_owned(), gradient(leaf, &gradients)))
                .collect(),
        }
    }

    /// A parameter as a matrix; experts lie below each other.
    fn leaf(&self, path: &str, device: &Device) -> Tensor<2> {
        let parameter = &self.parameters[path];
        let columns = match path {
            "router.linear.weight" => self.router.n_experts,
            "experts.down" => self.d_model,
            _ => self.d_ff,
        };
        tensor(parameter, [parameter.len() / columns, columns], device).require_grad()
    }
}

fn tensor<const D: usize>(values: &[f64], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), shape),
        (device, burn::tensor::DType::F64),
    )
}
