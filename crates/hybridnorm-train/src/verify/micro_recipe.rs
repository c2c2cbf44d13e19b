//! The recipe's half of a `micro_dense*` case: schedules, parameter groups, initialisation, AdamW, parameter counts.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use hybridnorm_core::{DecoderConfig, Norm, NormConfig, Placement};
use hybridnorm_interop::official::{OfficialConfig, name_of};
use hybridnorm_interop::{Array, InteropError};
use serde::Deserialize;
use serde_json::{Value, json};

use super::case::{CaseDir, Group, SchedulerSettings};
use super::check::{Check, FACTOR};
use super::micro::Values;
use super::trajectory;
use super::values::{array_of, parameters};
use crate::recipe::{AdamW, AdamWConfig, GradientNorms, GroupRule, clip_coefficient, params};

/// Runs the checks whose files are there.
pub(super) fn run(
    dir: &CaseDir,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    if dir.has("lr_tables.json") {
        schedules(&dir.json::<Vec<Value>>("lr_tables.json")?, checks)?;
    }
    if dir.has("param_groups.json") {
        groups(
            &dir.json::<Vec<GroupCase>>("param_groups.json")?,
            device,
            checks,
        )?;
    }
    if dir.has("init_stats.json") {
        initialisation(
            &dir.json::<Vec<InitCase>>("init_stats.json")?,
            device,
            checks,
        )?;
    }
    if dir.has("adamw.json") {
        adamw(dir, device, checks)?;
    }
    if dir.has("full_size_1_2b.json") {
        counts(&dir.json("full_size_1_2b.json")?, checks)?;
    }
    Ok(())
}

fn malformed(what: &str) -> InteropError {
    InteropError::Unsupported {
        field: what.to_string(),
        value: "this file".to_string(),
        reason: "a field is missing".to_string(),
    }
}

/// Learning rates are computed in f64: equal to twelve digits.
fn schedules(tables: &[Value], checks: &mut Vec<Check>) -> Result<(), InteropError> {
    for table in tables {
        let name = table["name"].as_str().unwrap_or_default();
        let number = |key: &str| table[key].as_f64();
        let total = table["t_max"].as_u64().or(table["max_steps"].as_u64());
        let settings = SchedulerSettings {
            name: name.to_string(),
            t_warmup: table["t_warmup"]
                .as_u64()
                .ok_or_else(|| malformed("t_warmup"))?,
            max_steps: total.ok_or_else(|| malformed("max_steps"))?,
            alpha_f: number("alpha_f").ok_or_else(|| malformed("alpha_f"))?,
            warmup_min_lr: number("warmup_min_lr"),
        };
        let peak = number("peak").ok_or_else(|| malformed("peak"))?;
        let schedule = trajectory::schedule(&settings, peak)?;
        let times = table["steps"].as_array().or(table["tokens"].as_array());
        let rates = table["lr"].as_array().ok_or_else(|| malformed("lr"))?;
        let worst = times
            .ok_or_else(|| malformed("steps"))?
            .iter()
            .zip(rates)
            .filter_map(|(t, lr)| Some((t.as_u64()?, lr.as_f64()?)))
            .map(|(t, lr)| ((schedule.at(t) - lr).abs(), t))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .ok_or_else(|| malformed("lr"))?;
        checks.push(Check::new(
            format!("lr_tables {name}"),
            worst.0,
            1e-12 * peak,
            format!("t = {}", worst.1),
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct GroupCase {
    weight_tying: bool,
    include_bias: bool,
    decay_norm_and_bias: bool,
    decay_embeddings: bool,
    decay: Vec<String>,
    no_decay: Vec<String>,
}

fn groups(
    cases: &[GroupCase],
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    for case in cases {
        let mut config = DecoderConfig {
            placement: "hybrid-star".parse()?,
            tied: case.weight_tying,
            bias: case.include_bias,
            ..DecoderConfig::new(32, 16, 2, 2)
        };
        config.norm.bias = case.include_bias;
        let rule = GroupRule {
            decay_norm_and_bias: case.decay_norm_and_bias,
            decay_embeddings: case.decay_embeddings,
        };
        let model = config.init(device)?;
        let (mut decay, mut no_decay) = (BTreeSet::new(), BTreeSet::new());
        for param in params(&model) {
            let name = name_of(&param.path).map_or(param.path.clone(), |named| named.name);
            if rule.decays(&param) {
                decay.insert(name)
            } else {
                no_decay.insert(name)
            };
        }
        let theirs = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let odd: Vec<String> = decay
            .symmetric_difference(&theirs(&case.decay))
            .chain(no_decay.symmetric_difference(&theirs(&case.no_decay)))
            .cloned()
            .collect();
        let what = format!(
            "param_groups tied={} bias={} decay_norm_and_bias={} decay_embeddings={}",
            case.weight_tying, case.include_bias, case.decay_norm_and_bias, case.decay_embeddings
        );
        checks.push(Check::exact(what, odd.is_empty(), odd.join(", ")));
    }
    Ok(())
}

#[derive(Deserialize)]
struct InitCase {
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
fn initialisation(
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
    // At three deviations the parent's σ shows: nothing may lie beyond. Six are far out in the tail of a plain normal.
    let beyond = if theirs < 3.05 && largest > 3.05 {
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
fn adamw(dir: &CaseDir, device: &Device, checks: &mut Vec<Check>) -> Result<(), InteropError> {
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
    let config = AdamWConfig {
        beta1: case.betas[0],
        beta2: case.betas[1],
        epsilon: case.eps,
        weight_decay: case.weight_decay,
        max_grad_norm: case.max_grad_norm,
        decay_norm_and_bias: false,
        decay_embeddings: false,
    };
    let mut optimizer = AdamW::new(config.clone(), &bag);
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

#[derive(Deserialize)]
struct FullSize {
    config: Value,
    variants: BTreeMap<String, Counts>,
}

#[derive(Deserialize)]
struct Counts {
    n_params: usize,
    n_params_without_embeddings: usize,
}

/// Parameter counts of the 1.2B configuration, without building it.
fn counts(full: &FullSize, checks: &mut Vec<Check>) -> Result<(), InteropError> {
    for (variant, counts) in &full.variants {
        let placement = match variant.as_str() {
            "prenorm" => "pre",
            "prenorm_qknorm" => "pre-qk",
            "postnorm" => "post-shifted",
            "hybridnorm" => "hybrid",
            "hybridnorm_star" => "hybrid-star",
            other => other,
        };
        let size = |key: &str| {
            full.config[key]
                .as_u64()
                .map(|n| n as usize)
                .ok_or_else(|| malformed(key))
        };
        let config = DecoderConfig {
            n_kv_heads: size("n_kv_heads")?,
            d_ff: size("mlp_hidden_size")? / 2,
            padded_vocab_size: size("embedding_size")?,
            tied: full.config["weight_tying"].as_bool().unwrap_or(true),
            placement: placement.parse::<Placement>()?,
            ..DecoderConfig::new(
                size("vocab_size")?,
                size("d_model")?,
                size("n_heads")?,
                size("n_layers")?,
            )
        };
        let all = config.num_params()?;
        let embeddings = config.padded_vocab_size * config.d_model;
        let equal =
            all == counts.n_params && all - embeddings == counts.n_params_without_embeddings;
        checks.push(Check::exact(
            format!("parameter count 1.2b {variant}"),
            equal,
            format!("{all}, {} expected", counts.n_params),
        ));
    }
    Ok(())
}
