//! Norms, activations and losses.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Int, Tensor, activation};
use hybridnorm_core::feed_forward::{
    Activation, DenseFeedForward, DenseFeedForwardConfig, FeedForward,
};
use hybridnorm_core::loss::token_losses;
use hybridnorm_core::{Norm, NormConfig, NormKind, Pass};
use hybridnorm_interop::InteropError;

use super::super::check::Check;
use super::super::values::array_of;
use super::{Meta, Values, gradient, plain_init, setting};

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

pub(super) fn norms(
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

pub(super) fn pointwise(
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
    let y: Tensor<2> = layer
        .forward(x.clone().unsqueeze(), &mut Pass::causal())
        .squeeze_dim(0);
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

/// Cross-entropy averages over the labels that count, z-loss over all rows (note in `meta.json`).
pub(super) fn loss(
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
