//! Rotary embedding and the inner attention.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use hybridnorm_core::attention::AttentionConfig;
use hybridnorm_core::attention::rope::{RotaryConfig, RotaryTables};
use hybridnorm_core::{Pass, QkvNormSites};
use hybridnorm_interop::{Array, InteropError};

use super::super::check::Check;
use super::super::values::array_of;
use super::{Meta, Values, gradient, plain_init, setting};

pub(super) fn rope(
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

pub(super) fn attention(
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
