//! Schedules, parameter groups, parameter counts.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::Device;
use hybridnorm_core::{DecoderConfig, Placement};
use hybridnorm_interop::{InteropError, official};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::case::{CaseDir, SchedulerSettings};
use super::super::check::Check;
use super::super::trajectory;
use super::named::official_of;
use super::{adamw, init, malformed, sparse};
use crate::recipe::{GroupRule, params};

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
        init::initialisation(
            &dir.json::<Vec<init::InitCase>>("init_stats.json")?,
            device,
            checks,
        )?;
    }
    if dir.has("adamw.json") {
        adamw::adamw(dir, device, checks)?;
    }
    if dir.has("full_size_1_2b.json") {
        counts(&dir.json("full_size_1_2b.json")?, checks)?;
    }
    if dir.has("full_size_1b_7b.json") {
        sparse::counts(&dir.json("full_size_1b_7b.json")?, checks)?;
    }
    Ok(())
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
            t_max: None,
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
    #[serde(default)]
    weight_tying: Option<bool>,
    #[serde(default)]
    include_bias: Option<bool>,
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
        let named: BTreeMap<&str, &[usize]> = case
            .decay
            .iter()
            .chain(&case.no_decay)
            .map(|name| (name.as_str(), &[][..]))
            .collect();
        let config = official_of(&named, json!({}))?.to_model()?;
        let rule = GroupRule {
            decay_norm_and_bias: case.decay_norm_and_bias,
            decay_embeddings: case.decay_embeddings,
        };
        let model = config.init(device)?;
        let (mut decay, mut no_decay) = (BTreeSet::new(), BTreeSet::new());
        for param in params(&model) {
            let group = match rule.decays(&param) {
                true => &mut decay,
                false => &mut no_decay,
            };
            group.extend(trajectory::names_of(&official::names(), &param));
        }
        let theirs = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let odd: Vec<String> = decay
            .symmetric_difference(&theirs(&case.decay))
            .chain(no_decay.symmetric_difference(&theirs(&case.no_decay)))
            .cloned()
            .collect();
        let (tied, bias) = (config.decoder.tied, config.decoder.bias);
        let stated = case.weight_tying.is_none_or(|stated| stated == tied)
            && case.include_bias.is_none_or(|stated| stated == bias);
        let what = format!(
            "param_groups tied={tied} bias={bias} decay_norm_and_bias={} decay_embeddings={}",
            case.decay_norm_and_bias, case.decay_embeddings
        );
        checks.push(Check::exact(format!("{what}, as stated"), stated, ""));
        checks.push(Check::exact(what, odd.is_empty(), odd.join(", ")));
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
            other => &other.replace('_', "-").replace("preqk", "pre-qk"),
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
