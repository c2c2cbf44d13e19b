//! Freshly initialised parameters beside the reference's, by their statistics.

use std::collections::BTreeMap;

use burn::tensor::Device;
use hybridnorm_interop::{Array, InteropError, official};
use serde::Deserialize;
use serde_json::json;

use super::super::check::Check;
use super::super::values::parameters;
use super::named::official_of;

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
        let shapes = case.params.iter();
        let shapes = shapes.map(|(name, stats)| (name.as_str(), stats.shape.as_slice()));
        let official = official_of(
            &shapes.collect(),
            json!({
                "init_fn": case.init_fn, "init_std": case.init_std.unwrap_or(0.02),
                "init_cutoff_factor": case.init_cutoff_factor, "scale_emb_init": case.scale_emb_init,
                "emb_init_std": case.emb_init_std,
            }),
        )?;
        let model = official.to_model()?.init(device)?;
        let found: BTreeMap<String, Array> =
            parameters(&model, &official::names()).into_iter().collect();
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
