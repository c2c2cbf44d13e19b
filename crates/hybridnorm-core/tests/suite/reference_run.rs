//! One small training step on any device and in any float type, and how far it is from the same step in f64.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Int, Tensor};
use hybridnorm_core::{Decoder, DecoderConfig, loss};
use hybridnorm_testing::{cast, gradients, largest, largest_difference, open, values};

/// Grouped queries, odd vocabulary, two layers: the first block of HybridNorm* and one of the others.
pub fn config() -> DecoderConfig {
    DecoderConfig {
        n_kv_heads: 2,
        ..DecoderConfig::new(53, 32, 4, 2)
    }
}

/// Token ids `[batch, seq]` that repeat nothing soon.
pub fn tokens(batch: usize, seq: usize, device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..batch * seq)
        .map(|i| ((i * i * 7 + i * 3) % 53) as i64)
        .collect();
    Tensor::<1, Int>::from_ints(ids.as_slice(), device).reshape([batch, seq])
}

/// What a step computed.
pub struct Step {
    pub logits: Vec<f64>,
    pub loss: f64,
    pub gradients: BTreeMap<String, Vec<f64>>,
}

/// Forward and backward on `[batch, seq]` tokens; every token is also its own target, so that a sequence of one has a loss.
pub fn step(model: &Decoder, batch: usize, seq: usize, device: &Device) -> Step {
    let ids = tokens(batch, seq, device);
    let logits = model.forward(ids.clone());
    let loss = loss::next_token_loss(logits.clone(), ids);
    let grads = GradientsParams::from_grads(loss.clone().backward(), model);
    Step {
        logits: values(logits),
        loss: values(loss)[0],
        gradients: gradients(model, &grads),
    }
}

/// The same step in f64 on the CPU, from the same seed.
pub fn step_in_f64(config: &DecoderConfig, batch: usize, seq: usize) -> Step {
    let device = open("flex").clone().autodiff();
    let model = cast(config.init(&device).unwrap(), FloatDType::F64);
    step(&model, batch, seq, &device)
}

/// Holds a step against one in f64: `unit` is the type's unit roundoff, `roundings` how many of it the error may be of the largest
/// value of each tensor.
pub fn assert_within(found: &Step, exact: &Step, unit: f64, roundings: f64) {
    let check = |what: &str, found: &[f64], exact: &[f64]| {
        let error = largest_difference(found, exact);
        let rounding = unit * largest(exact);
        // Written so that a NaN fails, and a gradient that is zero must be zero.
        assert!(
            error <= roundings * rounding,
            "{what}: {:.0} roundings of {roundings} allowed",
            error / rounding
        );
    };
    check("logits", &found.logits, &exact.logits);
    check("loss", &[found.loss], &[exact.loss]);
    assert_eq!(found.gradients.len(), exact.gradients.len());
    for (name, grad) in &exact.gradients {
        check(name, &found.gradients[name], grad);
    }
}

/// Plain gradient descent, for tests that only ask whether two runs are equal.
pub fn descend(model: Decoder, batch: usize, seq: usize, device: &Device) -> Decoder {
    struct Descend(GradientsParams);
    impl ModuleMapper for Descend {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let grad = self.0.remove::<D>(param.id);
            param.map(|x| match grad {
                Some(grad) => Tensor::from_inner(x.inner() - grad * 0.1).require_grad(),
                None => x,
            })
        }
    }
    let ids = tokens(batch, seq, device);
    let loss = loss::next_token_loss(model.forward(ids.clone()), ids);
    let grads = GradientsParams::from_grads(loss.backward(), &model);
    model.map(&mut Descend(grads))
}
