//! Freshly initialised parameters beside the reference's, by their statistics.

use std::collections::BTreeMap;

use burn::tensor::Device;
use hybridnorm_interop::official::OfficialConfig;
use hybridnorm_interop::{Array, InteropError};
use serde::Deserialize;
use serde_json::json;

use super::super::check::Check;
use super::super::values::parameters;
use super::malformed;

#[derive(Deserialize)]
pub(super) struct InitCase {
    init_fn: String,
    #[serde(default)]
    init_std: Option<f64>,
    #[serde(default)]
    init_cutoff_factor: Option<f64>,
    #[serde(default)]
    scale_emb_init: bool,
    #[serde(default)]
    emb_init_std: Option<f64>,
    d_model: usize,
    n_layers: usize,
    ffn_hidden_per_branch: usize,
    params: BTreeMap<String, InitStats>,
}

#[derive(Deserialize)]
struct InitStats {
    shape: Vec<usize>,
    std: f64,
    mean: f64,
    min: f64,
    max: f64,
}

/// Both sides are single draws. A deviation estimated from n values has standard error σ/√(2n), a mean σ/√n; two
/// draws differ by √2 of that, and six of those are allowed. Extremes are compared where the draw is truncated.
pub(super) fn initialisation(
    cases: &[InitCase],
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    for (number, case) in cases.iter().enumerate() {
        let shape = |name: &str| case.params.get(name).map(|stats| stats.shape.clone());
        let embedding = shape("transformer.wte.weight").ok_or_else(|| malformed("wte"))?;
        let qkv =
            shape("transformer.blocks.0.att_proj.weight").ok_or_else(|| malformed("att_proj"))?;
        let head_dim = shape("transformer.blocks.0.q_norm.weight").map_or(64, |shape| shape[0]);
        let flag = |name: &str| shape(&format!("transformer.blocks.0.{name}.weight")).is_some();
        let official: OfficialConfig = serde_json::from_value(json!({
            "d_model": case.d_model, "n_heads": case.d_model / head_dim, "n_layers": case.n_layers,
            "n_kv_heads": (qkv[0] - case.d_model) / (2 * head_dim), "mlp_hidden_size": 2 * case.ffn_hidden_per_branch,
            "rope": true, "include_bias": false, "layer_norm_type": "rms", "vocab_size": embedding[0],
            "use_query_norm": flag("q_norm"), "use_key_norm": flag("k_norm"), "use_value_norm": flag("v_norm"),
            "use_context_norm": flag("c_norm"), "attn_norm": flag("attn_norm"), "ffn_norm": flag("ff_norm"),
            "weight_tying": shape("transformer.ff_out.weight").is_none(), "init_fn": case.init_fn,
            "init_std": case.init_std.unwrap_or(0.02), "init_cutoff_factor": case.init_cutoff_factor,
            "scale_emb_init": case.scale_emb_init, "emb_init_std": case.emb_init_std,
        }))
        .map_err(|_| malformed("init_stats"))?;
        let model = official.to_decoder()?.init(device)?;
        let found: BTreeMap<String, Array> = parameters(&model).into_iter().collect();
        for (name, stats) in &case.params {
            let what = format!("init_stats {number} ({}) {name}", case.init_fn);
            checks.push(match found.get(name) {
                Some(array) if array.shape == stats.shape => {
                    compare_stats(what, &array.values, stats)
                }
                Some(array) => Check::exact(what, false, format!("shape {:?}", array.shape)),
                None => Check::exact(what, false, "no such parameter"),
            });
        }
        checks.push(Check::exact(
            format!("init_stats {number} parameters"),
            found.len() == case.params.len(),
            "",
        ));
    }
    Ok(())
}

fn compare_stats(what: String, values: &[f64], stats: &InitStats) -> Check {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let std = (values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    if stats.std == 0.0 {
        return Check::new(what, std + (mean - stats.mean).abs(), 0.0, "a constant");
    }
    let mean_error = (mean - stats.mean).abs() / (stats.std * (2.0 / n).sqrt());
    let std_error = (std - stats.std).abs() / (stats.std / n.sqrt());
    let largest = values.iter().fold(0f64, |m, x| m.max(x.abs())) / stats.std;
    let theirs = stats.max.max(-stats.min) / stats.std;
    // Truncated at three deviations of the parent, 3.041 of what is left: nothing may lie beyond, give or take the
    // error of the estimated deviation. Few values say nothing about a cut.
    let cut = 3.041 * (1.0 + 6.0 / (2.0 * n).sqrt());
    let beyond = if n >= 10_000.0 && theirs < cut && largest > cut {
        f64::INFINITY
    } else {
        0.0
    };
    let worst = mean_error.max(std_error).max(beyond);
    Check::new(
        what,
        worst,
        6.0,
        format!("standard errors; std {std:.5} against {:.5}", stats.std),
    )
}
