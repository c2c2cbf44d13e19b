//! A `micro_dense*` case: norms, activations, rotary embedding and attention by themselves, forward and backward.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Int, Tensor, activation};
use hybridnorm_core::attention::AttentionConfig;
use hybridnorm_core::attention::rope::{RotaryConfig, RotaryTables};
use hybridnorm_core::feed_forward::{Activation, DenseFeedForward, DenseFeedForwardConfig};
use hybridnorm_core::init::Initializer;
use hybridnorm_core::loss::token_losses;
use hybridnorm_core::{InitConfig, InitScheme, Norm, NormConfig, NormKind, Pass, QkvNormSites};
use hybridnorm_interop::{Array, InteropError, TensorFile};
use serde::Deserialize;
use std::collections::BTreeMap;

use super::case::CaseDir;
use super::check::{Check, largest_difference};
use super::micro_recipe;
use super::values::array_of;

#[derive(Deserialize)]
struct Meta {
    entries: BTreeMap<String, serde_json::Value>,
}

/// Runs every check of the case in `dir`.
///
/// # Errors
/// When the case cannot be read.
pub fn run(dir: &CaseDir, device: &Device) -> Result<Vec<Check>, InteropError> {
    let meta: Meta = dir.json("meta.json")?;
    let device = &device.clone().autodiff();
    let mut checks = Vec::new();
    if dir.has("norms.safetensors") {
        norms(
            &Values::open(dir, "norms.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    if dir.has("pointwise.safetensors") {
        pointwise(
            &Values::open(dir, "pointwise.safetensors")?,
            device,
            &mut checks,
        )?;
    }
    if dir.has("rope.safetensors") {
        rope(
            &Values::open(dir, "rope.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    if dir.has("attention.safetensors") {
        attention(
            &Values::open(dir, "attention.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    if dir.has("loss.safetensors") {
        loss(
            &Values::open(dir, "loss.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    micro_recipe::run(dir, device, &mut checks)?;
    Ok(checks)
}

/// A file whose entries come in single and (suffix 64) double precision.
pub(super) struct Values(TensorFile);

impl Values {
    pub(super) fn open(dir: &CaseDir, file: &str) -> Result<Self, InteropError> {
        Ok(Self(dir.tensors(file)?))
    }

    pub(super) fn tensor<const D: usize>(
        &self,
        name: &str,
        device: &Device,
    ) -> Result<Tensor<D>, InteropError> {
        let array = self.0.array(name)?;
        Ok(Tensor::from_data(array.to_f32(), device))
    }

    /// Against the f64 value; the reference's own error is its f32 value's distance from that.
    pub(super) fn compare(&self, name: &str, found: Array) -> Result<Check, InteropError> {
        let single = self.0.array(name)?;
        let double = format!("{name}64");
        if !self.0.contains(&double) {
            return Ok(Check::close(name, &found.values, &single, 0.0));
        }
        let double = self.0.array(&double)?;
        let own = largest_difference(&single.values, &double.values);
        Ok(Check::close(name, &found.values, &double, own))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// What stands before `suffix` in the names that end with it.
    fn stems(&self, suffix: &str) -> Vec<String> {
        let names = self.0.names();
        names
            .iter()
            .filter_map(|name| name.strip_suffix(suffix))
            .map(str::to_string)
            .collect()
    }
}

fn setting(meta: &Meta, entry: &str, key: &str) -> Option<f64> {
    meta.entries.get(entry)?.get(key)?.as_f64()
}

/// The gradient of `x`, zero where it has none.
fn gradient<const D: usize>(x: &Tensor<D>, grads: &burn::tensor::Gradients) -> Array {
    array_of(
        x.grad(grads)
            .unwrap_or_else(|| x.clone().inner().zeros_like()),
    )
}

fn norm_of(
    values: &Values,
    stem: &str,
    kind: NormKind,
    epsilon: f64,
    device: &Device,
) -> Result<Norm, InteropError> {
    let weight: Tensor<1> = values.tensor(&format!("{stem}.weight"), device)?;
    let bias = format!("{stem}.bias");
    let bias = values
        .has(&bias)
        .then(|| values.tensor::<1>(&bias, device))
        .transpose()?;
    let config = NormConfig {
        kind,
        epsilon,
        bias: bias.is_some(),
        ..NormConfig::new(weight.dims()[0])
    };
    let mut norm = config.init(device)?;
    norm.weight = Some(Param::from_tensor(weight));
    norm.bias = bias.map(Param::from_tensor);
    Ok(norm)
}

fn norm_checks<const D: usize>(
    values: &Values,
    stem: &str,
    norm: &Norm,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    let x = values
        .tensor::<D>(&format!("{stem}.x"), device)?
        .require_grad();
    let y = norm.forward(x.clone());
    let dy = values.tensor::<D>(&format!("{stem}.dy"), device)?;
    let grads = (y.clone() * dy).sum().backward();
    checks.push(values.compare(&format!("{stem}.y"), array_of(y))?);
    checks.push(values.compare(&format!("{stem}.dx"), gradient(&x, &grads))?);
    for (name, param) in [("dw", &norm.weight), ("db", &norm.bias)] {
        let name = format!("{stem}.{name}");
        if let Some(param) = param
            && values.has(&name)
        {
            checks.push(values.compare(&name, gradient(&param.val(), &grads))?);
        }
    }
    Ok(())
}

fn norms(
    values: &Values,
    meta: &Meta,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    for stem in values.stems(".x") {
        let kind = if stem.starts_with("rms") {
            NormKind::Rms
        } else {
            NormKind::Layer
        };
        let epsilon = setting(meta, &stem, "eps").unwrap_or(1e-5);
        let norm = norm_of(values, &stem, kind, epsilon, device)?;
        norm_checks::<2>(values, &stem, &norm, device, checks)?;
    }
    Ok(())
}

fn pointwise(
    values: &Values,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    let norm = norm_of(values, "head_rms", NormKind::Rms, 1e-5, device)?;
    norm_checks::<4>(values, "head_rms", &norm, device, checks)?;
    let x = values.tensor::<2>("gelu.x", device)?;
    checks.push(values.compare("gelu.y", array_of(activation::gelu(x)))?);
    let x = values.tensor::<2>("relu.x", device)?;
    checks.push(values.compare("relu.y", array_of(activation::relu(x)))?);

    // SwiGLU by itself: a feed-forward layer whose two projections are the identity.
    let x = values.tensor::<2>("swiglu.x", device)?.require_grad();
    let layer = gate_only(x.dims()[1] / 2, device)?;
    let y: Tensor<2> = layer.apply(x.clone().unsqueeze()).squeeze_dim(0);
    let dy = values.tensor::<2>("swiglu.dy", device)?;
    let grads = (y.clone() * dy).sum().backward();
    checks.push(values.compare("swiglu.y", array_of(y))?);
    checks.push(values.compare("swiglu.dx", gradient(&x, &grads))?);
    Ok(())
}

fn gate_only(d_ff: usize, device: &Device) -> Result<DenseFeedForward, InteropError> {
    let identity = |n| Linear {
        weight: Param::from_tensor(Tensor::eye(n, device)),
        bias: None,
    };
    let config = DenseFeedForwardConfig {
        d_model: d_ff,
        d_ff,
        activation: Activation::SwiGlu,
        bias: false,
    };
    let mut layer = config.init(&plain_init(d_ff)?, device)?;
    layer.input = identity(2 * d_ff);
    layer.output = identity(d_ff);
    Ok(layer)
}

fn plain_init(d_model: usize) -> Result<Initializer, InteropError> {
    Ok(Initializer::new(
        &InitConfig::default(),
        InitScheme::Normal,
        d_model,
        1,
    )?)
}

fn rope(
    values: &Values,
    meta: &Meta,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    for stem in values.stems(".q") {
        let theta = setting(meta, &stem, "theta").unwrap_or(10_000.0);
        let config = RotaryConfig {
            theta,
            scaling: None,
        };
        let q = values.tensor::<4>(&format!("{stem}.q"), device)?;
        let k = values.tensor::<4>(&format!("{stem}.k"), device)?;
        let ([_, _, tq, d], [_, _, tk, _]) = (q.dims(), k.dims());
        let queries = RotaryTables::new(&config, d, tk - tq..tk, device);
        let keys = RotaryTables::new(&config, d, 0..tk, device);
        checks.push(values.compare(&format!("{stem}.q_out"), array_of(queries.rotate(q)))?);
        checks.push(values.compare(&format!("{stem}.k_out"), array_of(keys.rotate(k)))?);
        let (cos, sin) = tables(&keys, d, tk, device);
        checks.push(values.compare(&format!("{stem}.cos"), cos)?);
        checks.push(values.compare(&format!("{stem}.sin"), sin)?);
    }
    for stem in values.stems(".positions") {
        let (theta, d) = table_name(&stem).ok_or_else(|| InteropError::Unsupported {
            field: "rope table".to_string(),
            value: stem.clone(),
            reason: "the name does not say theta and head_dim".to_string(),
        })?;
        let config = RotaryConfig {
            theta,
            scaling: None,
        };
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in values.0.array(&format!("{stem}.positions"))?.values {
            let p = position as usize;
            let row = tables(
                &RotaryTables::new(&config, d, p..p + 1, device),
                d,
                1,
                device,
            );
            cos.extend(row.0.values);
            sin.extend(row.1.values);
        }
        for (name, found) in [("cos", cos), ("sin", sin)] {
            let shape = vec![found.len() / d, d];
            checks.push(values.compare(
                &format!("{stem}.{name}"),
                Array {
                    shape,
                    values: found,
                },
            )?);
        }
    }
    Ok(())
}

/// Full-width cosines and sines, read off by rotating unit vectors: (1, 0) in each pair turns into (cos, sin).
fn tables(tables: &RotaryTables, d: usize, positions: usize, device: &Device) -> (Array, Array) {
    let half = [1, 1, positions, d / 2];
    let units = Tensor::cat(
        vec![Tensor::<4>::ones(half, device), Tensor::zeros(half, device)],
        3,
    );
    let turned = tables.rotate(units);
    let twice = |part: Tensor<4>| array_of(Tensor::cat(vec![part.clone(), part], 3));
    (
        twice(turned.clone().narrow(3, 0, d / 2)),
        twice(turned.narrow(3, d / 2, d / 2)),
    )
}

/// `rope.table_theta500000_hd16` → (500000, 16).
fn table_name(stem: &str) -> Option<(f64, usize)> {
    let (theta, d) = stem.split_once("theta")?.1.split_once("_hd")?;
    Some((theta.parse().ok()?, d.parse().ok()?))
}

fn attention(
    values: &Values,
    meta: &Meta,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    for stem in values.stems(".attn_out_weight") {
        let read = |key: &str| setting(meta, &stem, key).unwrap_or(0.0);
        let (h, k, d) = (
            read("n_heads") as usize,
            read("n_kv_heads") as usize,
            read("head_dim") as usize,
        );
        let letters = meta
            .entries
            .get(&stem)
            .and_then(|entry| entry.get("norms")?.as_str())
            .unwrap_or("");
        let mut config = AttentionConfig {
            n_kv_heads: k,
            head_dim: d,
            norms: QkvNormSites::per_head(letters),
            rope: Some(RotaryConfig {
                theta: read("rope_theta"),
                scaling: None,
            }),
            ..AttentionConfig::new(h * d, h)
        };
        config.norm_style.epsilon = read("eps");
        let mut layer = config.init(0, &plain_init(h * d)?, device)?;
        let weight = values.tensor::<2>(&format!("{stem}.attn_out_weight"), device)?;
        layer.output = Linear {
            weight: Param::from_tensor(weight.transpose()),
            bias: None,
        };
        let norms = &mut layer.norms;
        let sites = [
            ("q", &mut norms.query),
            ("k", &mut norms.key),
            ("v", &mut norms.value),
            ("c", &mut norms.context),
        ];
        for (letter, site) in sites {
            if let Some(site) = site {
                let weight = values.tensor::<1>(&format!("{stem}.{letter}_norm_weight"), device)?;
                site.norm.weight = Some(Param::from_tensor(weight));
            }
        }
        let input = |name: &str| -> Result<Tensor<3>, InteropError> {
            Ok(values
                .tensor::<3>(&format!("{stem}.{name}"), device)?
                .require_grad())
        };
        let (q, key, v) = (input("q")?, input("k")?, input("v")?);
        let [b, t, _] = q.dims();
        let heads = |x: &Tensor<3>, n: usize| x.clone().reshape([b, t, n, d]);
        let context = layer.attend(
            heads(&q, h),
            heads(&key, k),
            heads(&v, k),
            &mut Pass::<()>::causal(),
        );
        let y = layer.output.forward(context.clone());
        let grads = (y.clone() * values.tensor(&format!("{stem}.dy"), device)?)
            .sum()
            .backward();
        checks.push(values.compare(&format!("{stem}.context"), array_of(context))?);
        checks.push(values.compare(&format!("{stem}.y"), array_of(y))?);
        for (name, x) in [("dq", &q), ("dk", &key), ("dv", &v)] {
            checks.push(values.compare(&format!("{stem}.{name}"), gradient(x, &grads))?);
        }
        let dw = gradient(&layer.output.weight.val(), &grads).transposed();
        checks.push(values.compare(&format!("{stem}.d_attn_out_weight"), dw)?);
        let norms = &layer.norms;
        let sites = [
            ("q", &norms.query),
            ("k", &norms.key),
            ("v", &norms.value),
            ("c", &norms.context),
        ];
        for (letter, site) in sites {
            if let Some(weight) = site.as_ref().and_then(|site| site.norm.weight.as_ref()) {
                let name = format!("{stem}.d_{letter}_norm");
                checks.push(values.compare(&name, gradient(&weight.val(), &grads))?);
            }
        }
    }
    Ok(())
}

/// Cross-entropy averages over the labels that count, z-loss over all rows (note in `meta.json`).
fn loss(
    values: &Values,
    meta: &Meta,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    let z_weight = setting(meta, "loss", "z_loss_multiplier").unwrap_or(1e-4);
    let labels = Tensor::<1, Int>::from_data(values.0.array("loss.labels")?.to_i64(), device);
    let rows = labels.dims()[0];
    let ignored = labels.clone().equal_elem(-100);
    let counted = rows
        - values
            .0
            .array("loss.labels")?
            .values
            .iter()
            .filter(|label| **label == -100.0)
            .count();
    for (reduction, ce_divisor, z_divisor) in [("sum", 1, 1), ("mean", counted, rows)] {
        for (kind, divisor) in [("ce", ce_divisor), ("z", z_divisor)] {
            let logits = values.tensor::<2>("loss.logits", device)?.require_grad();
            let losses = token_losses(
                logits.clone(),
                labels.clone().clamp_min(0),
                Some(ignored.clone()),
            );
            let loss = match kind {
                "ce" => losses.nll.sum(),
                _ => losses.squared_lse.sum() * z_weight,
            } / divisor as f64;
            let grads = loss.backward();
            checks.push(values.compare(&format!("loss.{reduction}.{kind}"), array_of(loss))?);
            checks.push(values.compare(
                &format!("loss.{reduction}.d{kind}"),
                gradient(&logits, &grads),
            )?);
        }
    }
    Ok(())
}
