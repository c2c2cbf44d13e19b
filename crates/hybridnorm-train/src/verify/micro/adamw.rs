//! AdamW on given gradients.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use hybridnorm_core::{Norm, NormConfig};
use hybridnorm_interop::InteropError;
use serde::Deserialize;

use super::super::case::{CaseDir, Group};
use super::super::check::{Check, FACTOR};
use super::super::values::array_of;
use super::{Values, malformed};
use crate::recipe::{AdamWConfig, GradientNorms, Optimizer, clip_coefficient};

#[derive(Deserialize)]
struct AdamWCase {
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    max_grad_norm: f64,
    steps: Vec<AdamWStep>,
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct AdamWStep {
    step: u64,
    lr: f64,
    total_grad_norm: f64,
}

/// A bag of parameters under the reference's names: matrices and vectors.
#[derive(Module, Debug)]
struct Bag {
    embedding: Vec<burn::nn::Embedding>,
    matrices: Vec<Linear>,
    norms: Vec<Norm>,
}

/// Six steps on given gradients.
pub(super) fn adamw(
    dir: &CaseDir,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    let case: AdamWCase = dir.json("adamw.json")?;
    let values = Values::open(dir, "adamw.safetensors")?;
    let names: Vec<&String> = case
        .groups
        .iter()
        .flat_map(|group| &group.param_names)
        .collect();
    let is_norm = |name: &str| name.ends_with("norm.weight") || name.ends_with("ln_f.weight");
    let is_embedding = |name: &str| name.ends_with("wte.weight");
    let of = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        names
            .iter()
            .filter(|name| wanted(name))
            .map(|name| name.to_string())
            .collect()
    };
    let embeddings = of(&is_embedding);
    let norms = of(&is_norm);
    let matrices = of(&|name| !is_norm(name) && !is_embedding(name));
    let matrix = |name: &String| -> Result<Param<Tensor<2>>, InteropError> {
        Ok(Param::from_tensor(
            values.tensor(&format!("init.{name}"), device)?,
        ))
    };
    let mut bag = Bag {
        embedding: embeddings
            .iter()
            .map(|name| {
                Ok(burn::nn::Embedding {
                    weight: matrix(name)?,
                })
            })
            .collect::<Result<_, InteropError>>()?,
        matrices: matrices
            .iter()
            .map(|name| {
                Ok(Linear {
                    weight: matrix(name)?,
                    bias: None,
                })
            })
            .collect::<Result<_, InteropError>>()?,
        norms: norms
            .iter()
            .map(|name| {
                let weight: Tensor<1> = values.tensor(&format!("init.{name}"), device)?;
                let mut norm = NormConfig::new(weight.dims()[0]).init(device)?;
                norm.weight = Some(Param::from_tensor(weight));
                Ok(norm)
            })
            .collect::<Result<_, InteropError>>()?,
    };
    let decays = |name: &String| {
        let mut groups = case.groups.iter();
        groups.any(|group| group.weight_decay != 0.0 && group.param_names.contains(name))
    };
    let config = AdamWConfig {
        beta1: case.betas[0],
        beta2: case.betas[1],
        epsilon: case.eps,
        weight_decay: case.weight_decay,
        max_grad_norm: case.max_grad_norm,
        decay_norm_and_bias: norms.iter().any(decays),
        decay_embeddings: embeddings.iter().any(decays),
    };
    let mut optimizer = Optimizer::new(config.clone(), &bag);
    for AdamWStep {
        step,
        lr,
        total_grad_norm,
    } in case.steps
    {
        let mut grads = GradientsParams::new();
        for (name, embedding) in embeddings.iter().zip(&bag.embedding) {
            grads.register(
                embedding.weight.id,
                values
                    .tensor::<2>(&format!("grad{step}.{name}"), device)?
                    .inner(),
            );
        }
        for (name, linear) in matrices.iter().zip(&bag.matrices) {
            grads.register(
                linear.weight.id,
                values
                    .tensor::<2>(&format!("grad{step}.{name}"), device)?
                    .inner(),
            );
        }
        for (name, norm) in norms.iter().zip(&bag.norms) {
            if let Some(weight) = &norm.weight {
                grads.register(
                    weight.id,
                    values
                        .tensor::<1>(&format!("grad{step}.{name}"), device)?
                        .inner(),
                );
            }
        }
        let norm = GradientNorms::measure(&grads, &bag)
            .map_err(|_| malformed("gradients"))?
            .global();
        let relative = (norm / total_grad_norm - 1.0).abs();
        checks.push(Check::new(
            "adamw total_grad_norm, relative",
            relative,
            FACTOR * f64::from(f32::EPSILON),
            format!("step {step}"),
        ));
        let clip = clip_coefficient(norm, config.max_grad_norm);
        bag = optimizer.step(bag, grads, lr, clip);
        for (name, embedding) in embeddings.iter().zip(&bag.embedding) {
            checks.push(values.compare(
                &format!("param{step}.{name}"),
                array_of(embedding.weight.val()),
            )?);
        }
        for (name, linear) in matrices.iter().zip(&bag.matrices) {
            checks.push(values.compare(
                &format!("param{step}.{name}"),
                array_of(linear.weight.val()),
            )?);
        }
        for (name, norm) in norms.iter().zip(&bag.norms) {
            if let Some(weight) = &norm.weight {
                checks
                    .push(values.compare(&format!("param{step}.{name}"), array_of(weight.val()))?);
            }
        }
    }
    Ok(())
}
