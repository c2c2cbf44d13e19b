//! How the gradients of attention follow the scale of its weights (the paper's appendix B, Theorem 2).
//!
//! Two experiments. In one, attention of a single layer computes `S` from the input that it has in the model; some of W_Q, W_K, W_V and
//! W_O are multiplied by c, and the gradients of `⟨R, S⟩` are taken, where R is drawn from ±1: over the draws of R, their mean square is
//! the square of the Frobenius norm of the Jacobian, which the theorem bounds. In the other, W_Q, W_K and W_V of all layers are
//! multiplied by c, and the gradients of the loss and the stream before the head are looked at.

use std::time::Instant;

use burn::module::{Module, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::{FloatDType, Tensor, TensorData};
use hybridnorm_core::trace::Branch;
use hybridnorm_core::{Attention, DecoderConfig, Pass};
use hybridnorm_kernels::square_sum;
use hybridnorm_moe::Routing;
use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::record::Coupling;
use super::short_run::Lab;
use super::subject::Subject;
use crate::engine::{LanguageModel, Layers, TokenBatch, TrainError, unreadable};
use crate::error::Error;
use crate::recipe::GradientNorms;

/// The factors on the weights.
pub const SCALES: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Seed of R.
const SEED: u64 = 6198;

/// Which matrices of attention are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaled {
    /// W_Q.
    Query,
    /// W_K.
    Key,
    /// W_V.
    Value,
    /// W_O.
    Output,
    /// W_Q, W_K and W_V: what QKV-norm is to undo.
    QueryKeyValue,
    /// W_K, W_V and W_O: all that the gradient of W_Q depends on beside itself.
    KeyValueOutput,
}

impl Scaled {
    /// Every choice.
    pub const ALL: [Self; 6] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::QueryKeyValue,
        Self::KeyValueOutput,
    ];

    /// Whether it multiplies W_Q, W_K, W_V and W_O.
    fn matrices(self) -> [bool; 4] {
        match self {
            Self::Query => [true, false, false, false],
            Self::Key => [false, true, false, false],
            Self::Value => [false, false, true, false],
            Self::Output => [false, false, false, true],
            Self::QueryKeyValue => [true, true, true, false],
            Self::KeyValueOutput => [false, true, true, true],
        }
    }

    /// The factors on W_Q, W_K, W_V and W_O.
    fn factors(self, scale: f64) -> [f64; 4] {
        self.matrices()
            .map(|scaled| if scaled { scale } else { 1.0 })
    }
}

/// Attention of one layer while some of its matrices are multiplied by each factor in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerCoupling {
    /// The block, from 0.
    pub layer: usize,
    /// What is multiplied.
    pub scaled: Scaled,
    /// ‖S_c − S_1‖/‖S_1‖ for each factor.
    pub output_change: Layers,
    /// ‖∂⟨R, S⟩/∂W_Q‖ for each factor.
    pub query: Layers,
    /// The same of W_K.
    pub key: Layers,
    /// The same of W_V.
    pub value: Layers,
    /// The same of W_O.
    pub output: Layers,
}

/// The whole model while W_Q, W_K and W_V of all layers are multiplied by each factor in turn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCoupling {
    /// Change of the stream before the head over its size, for each factor.
    pub hidden_change: Layers,
    /// For each factor, by layer: the norm of the gradient of the fused W_Q, W_K, W_V over that at factor 1.
    pub gradient_ratio: Vec<Layers>,
}

impl LayerCoupling {
    /// The exponent p of `‖∂⟨R, S⟩/∂W‖ ∝ c^p`, by least squares over all factors; `None` where one of them is not known or zero.
    pub fn exponent(scales: &[f64], norms: &Layers) -> Option<f64> {
        let norms: Option<Vec<f64>> = norms.iter().copied().collect();
        let points: Vec<(f64, f64)> = scales.iter().copied().zip(norms?).collect();
        let logs = points.iter().map(|(scale, norm)| (scale.ln(), norm.ln()));
        let logs: Vec<(f64, f64)> = logs.collect();
        let n = logs.len() as f64;
        let mean = |pick: fn(&(f64, f64)) -> f64| logs.iter().map(pick).sum::<f64>() / n;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let covariance: f64 = logs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
        let variance: f64 = logs.iter().map(|p| (p.0 - x) * (p.0 - x)).sum();
        Some(covariance / variance).filter(|slope| slope.is_finite())
    }
}

/// Widths of queries and of keys, which are those of values too.
fn widths(model: &DecoderConfig) -> (usize, usize) {
    let d = model.head_dim();
    (model.n_heads * d, model.n_kv_heads * d)
}

/// `attention` with its matrices, and their biases, multiplied by the factors on W_Q, W_K, W_V and W_O.
fn scale(mut attention: Attention, model: &DecoderConfig, factors: [f64; 4]) -> Attention {
    let (query, key) = widths(model);
    let device = attention.qkv.weight.lazy_device();
    let [q, k, v, o] = factors.map(|factor| factor as f32);
    let columns = [vec![q; query], vec![k; key], vec![v; key]].concat();
    let columns = TensorData::new(columns, [query + 2 * key]);
    let columns = Tensor::<1>::from_data(columns, &device.inner());
    fn times<const D: usize>(
        param: Param<Tensor<D>>,
        factor: impl FnOnce(Tensor<D>) -> Tensor<D>,
    ) -> Param<Tensor<D>> {
        param.map(|x| match x.device().is_autodiff() {
            true => Tensor::from_inner(factor(x.inner())).require_grad(),
            false => factor(x),
        })
    }
    let (qkv, output) = (&mut attention.qkv, &mut attention.output);
    qkv.weight = times(qkv.weight.clone(), |x| x * columns.clone().unsqueeze());
    qkv.bias = qkv.bias.take().map(|bias| times(bias, |x| x * columns));
    output.weight = times(output.weight.clone(), |x| x * o);
    output.bias = output.bias.take().map(|bias| times(bias, |x| x * o));
    attention
}

/// The sum of the squares of the gradient of `param`, in parts of so many columns.
fn squares(
    grads: &GradientsParams,
    param: ParamId,
    columns: &[usize],
) -> Result<Vec<Tensor<1>>, TrainError> {
    let missing = || TrainError::Batch {
        step: 1,
        problem: "attention has no gradient".to_string(),
    };
    let grad = grads.get::<2>(param).ok_or_else(missing)?;
    let mut start = 0;
    let parts = columns.iter().map(|width| {
        let part = grad.clone().narrow(1, start, *width);
        start += width;
        square_sum(part.cast(FloatDType::F32))
    });
    Ok(parts.collect())
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

impl Lab {
    /// Both experiments on the first sequence of the first batch.
    pub(super) fn coupling(&self, subject: &Subject) -> Result<Coupling, Error> {
        let started = Instant::now();
        let (config, model) = self.model(subject)?;
        let batch = self.first_batch(subject.seed)?.first(1);
        let depth = config.model.n_layers;
        let mut chosen = vec![0, depth / 2, depth - 1];
        chosen.dedup();
        let mut layers = Vec::new();
        for (layer, input) in inputs(&model, &batch, &chosen) {
            let attention = &model.decoder.blocks[layer].attention;
            for scaled in Scaled::ALL {
                layers.push(layer_coupling(
                    layer,
                    attention,
                    &input,
                    &config.model,
                    scaled,
                )?);
            }
        }
        Ok(Coupling {
            subject: subject.clone(),
            scales: SCALES.to_vec(),
            layers,
            model: model_coupling(&model, &batch, &config.model)?,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// What goes into attention of the `chosen` layers, `[1, seq, d_model]`, without autodiff.
fn inputs(model: &LanguageModel, batch: &TokenBatch, chosen: &[usize]) -> Vec<(usize, Tensor<3>)> {
    let plain = model.decoder.valid();
    let batch = batch.clone().without_autodiff();
    let mut pass = batch.context();
    let mut x = plain.embed(batch.input(), &mut pass);
    let mut found = Vec::new();
    for (layer, block) in plain.blocks.iter().enumerate() {
        if chosen.contains(&layer) {
            let residual = &block.attention_residual;
            residual.wrap(x.clone(), Branch::Attention, &mut pass, |h, _| {
                found.push((layer, h.clone()));
                h
            });
        }
        x = plain.forward_block(layer, x, &mut pass);
    }
    found
}

/// `attention` on `input`, with some matrices multiplied by each factor in turn.
fn layer_coupling(
    layer: usize,
    attention: &Attention,
    input: &Tensor<3>,
    model: &DecoderConfig,
    scaled: Scaled,
) -> Result<LayerCoupling, TrainError> {
    let input = Tensor::from_inner(input.clone());
    let output = |factors| {
        let attention = scale(attention.clone(), model, factors);
        let mut pass: Pass<Routing> = Pass::causal();
        let s = attention.forward(input.clone(), &mut pass);
        (attention, s)
    };
    let plain = output([1.0; 4]).1.inner();
    let size = square_sum(plain.clone().cast(FloatDType::F32));
    let dims = plain.dims();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let signs = (0..dims.iter().product()).map(|_| match rng.next_u32() & 1 {
        0 => -1.0,
        _ => 1.0,
    });
    let direction: Vec<f32> = signs.collect();
    let direction = Tensor::<3>::from_data(TensorData::new(direction, dims), &input.device());
    let (query, key) = widths(model);
    let mut sums = vec![size];
    for factor in SCALES {
        let (attention, s) = output(scaled.factors(factor));
        let change = s.clone().inner() - plain.clone();
        sums.push(square_sum(change.cast(FloatDType::F32)));
        let grads = (s * direction.clone()).sum().backward();
        let grads = GradientsParams::from_grads(grads, &attention);
        let qkv = attention.qkv.weight.id;
        sums.extend(squares(&grads, qkv, &[query, key, key])?);
        sums.extend(squares(&grads, attention.output.weight.id, &[dims[2]])?);
    }
    let sums: Vec<f32> = Tensor::cat(sums, 0)
        .try_into_vec_as()
        .map_err(unreadable("gradient norm", 1))?;
    let mut norms = sums.into_iter().map(|square| f64::from(square).sqrt());
    let size = norms.next().unwrap_or(f64::NAN);
    let mut columns: [Layers; 5] = Default::default();
    for _ in SCALES {
        for (column, norm) in columns.iter_mut().zip(norms.by_ref().take(5)) {
            column.push(finite(norm));
        }
    }
    let [change, query, key, value, output] = columns;
    let relative = |norm: Option<f64>| norm.and_then(|norm| finite(norm / size));
    Ok(LayerCoupling {
        layer,
        scaled,
        output_change: change.into_iter().map(relative).collect(),
        query,
        key,
        value,
        output,
    })
}

/// The whole model with the queries, keys and values of all layers multiplied by each factor in turn.
fn model_coupling(
    model: &LanguageModel,
    batch: &TokenBatch,
    config: &DecoderConfig,
) -> Result<ModelCoupling, TrainError> {
    let run = |factor: f64| -> Result<(Tensor<3>, Vec<f64>), TrainError> {
        let mut scaled = model.clone();
        let blocks = std::mem::take(&mut scaled.decoder.blocks).into_iter();
        let blocks = blocks.map(|mut block| {
            let factors = Scaled::QueryKeyValue.factors(factor);
            block.attention = scale(block.attention, config, factors);
            block
        });
        scaled.decoder.blocks = blocks.collect();
        let bare = batch.clone().without_autodiff();
        let plain = scaled.decoder.valid();
        let hidden = plain.hidden(bare.input(), &mut bare.context());
        let grads = scaled.loss(batch.clone()).backward();
        let grads = GradientsParams::from_grads(grads, &scaled);
        let norms = GradientNorms::measure(&grads, &scaled.decoder);
        let norms = norms.map_err(unreadable("gradient norm", 1))?;
        let norm = |id: ParamId| {
            let found = norms.each.iter().find(|(known, _)| *known == id);
            found.map_or(f64::NAN, |(_, norm)| *norm)
        };
        let blocks = scaled.decoder.blocks.iter();
        let norms = blocks.map(|block| norm(block.attention.qkv.weight.id));
        Ok((hidden, norms.collect()))
    };
    let (plain, own) = run(1.0)?;
    let mut changes = vec![square_sum(plain.clone().cast(FloatDType::F32))];
    let mut gradient_ratio = Vec::new();
    for factor in SCALES {
        let (hidden, norms) = run(factor)?;
        changes.push(square_sum((hidden - plain.clone()).cast(FloatDType::F32)));
        let ratios = norms.iter().zip(&own).map(|(norm, own)| finite(norm / own));
        gradient_ratio.push(ratios.collect());
    }
    let changes: Vec<f32> = Tensor::cat(changes, 0)
        .try_into_vec_as()
        .map_err(unreadable("change of the stream", 1))?;
    let size = changes.first().copied().map_or(f64::NAN, f64::from);
    let changes = changes.iter().skip(1).map(|square| f64::from(*square));
    Ok(ModelCoupling {
        hidden_change: changes
            .map(|square| finite((square / size).sqrt()))
            .collect(),
        gradient_ratio,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_have_their_exponent() {
        let norms =
            |power: f64| -> Layers { SCALES.iter().map(|c| Some(3.0 * c.powf(power))).collect() };
        for power in [-1.0, 0.0, 2.5] {
            let found = LayerCoupling::exponent(&SCALES, &norms(power)).unwrap();
            assert!((found - power).abs() < 1e-12, "{found}");
        }
        let mut unknown = norms(1.0);
        unknown[2] = None;
        assert_eq!(LayerCoupling::exponent(&SCALES, &unknown), None);
        assert_eq!(LayerCoupling::exponent(&SCALES, &vec![Some(0.0); 5]), None);
    }
}
