//! The report of a run.

use std::path::Path;

use serde_json::Value;

use super::error::ReportError;
use super::log::{Log, at};
use super::series::short;
use super::table::{Cell, Table};
use super::{Report, Section, run_figures, run_routers};
use crate::engine::{METRICS, SUMMARY, differing_fields, stored_config};
use crate::lab::compare::{Outcome, State};
use crate::run::RunConfig;
use crate::sizes::{Parameters, thousands};

pub(super) fn report(dir: &Path) -> Result<Report, ReportError> {
    let config = stored_config(dir)?;
    let log = Log::read(&dir.join(METRICS))?;
    let summary = summary(&dir.join(SUMMARY))?;
    let placement = config.model.placement.to_string();
    let name = dir.canonicalize().ok();
    let name = name
        .as_deref()
        .and_then(Path::file_name)
        .unwrap_or(dir.as_os_str());
    let mut sections = vec![overview(&config, &log, &summary, dir)?];
    for (title, figures) in [
        ("Learning", run_figures::learning(&log)),
        ("Layer by layer", run_figures::layers(&log)),
        ("Routers", run_routers::routers(&log)),
        ("Machine and updates", run_figures::machine(&log)),
    ] {
        if !figures.is_empty() {
            sections.push(Section {
                title: title.to_string(),
                figures,
                ..Section::default()
            });
        }
    }
    sections.extend(events(&log));
    sections.push(configuration(&config)?);
    Ok(Report {
        title: format!("{}: {placement}", name.to_string_lossy()),
        answer: None,
        sections,
    })
}

fn summary(path: &Path) -> Result<Value, ReportError> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Value::Null),
        text => text.map_err(ReportError::io("read", path))?,
    };
    serde_json::from_str(&text).map_err(|error| ReportError::File {
        path: path.to_path_buf(),
        reason: error.to_string(),
    })
}

/// What it is, and how far it has come.
fn overview(
    config: &RunConfig,
    log: &Log,
    summary: &Value,
    dir: &Path,
) -> Result<Section, ReportError> {
    let training = &config.training;
    let mut table = Table::new(["what", "figure"]);
    let mut fact = |what: &str, figure: String| table.push([Cell::from(what), figure.into()]);
    let parameters =
        Parameters::of(&config.model_config()).map_err(crate::engine::TrainError::from)?;
    let model = &config.model;
    fact(
        "model",
        format!(
            "{parameters}: {} layers, width {}, {} heads",
            model.n_layers, model.d_model, model.n_heads
        ),
    );
    fact("placement", model.placement.to_string());
    fact(
        "initialisation",
        format!("{}, seed {}", model.init_scheme(), model.init.seed),
    );
    let done = log
        .of("step")
        .last()
        .and_then(|line| line["step"].as_u64())
        .unwrap_or(0);
    fact(
        "steps",
        format!("{} of {}", thousands(done), thousands(training.steps)),
    );
    fact("tokens", thousands(done * training.tokens_per_step()));
    for (what, kind, field) in [
        ("training loss, nats per token", "step", "loss"),
        (
            "validation loss, nats per token",
            "evaluation",
            "nats_per_token",
        ),
        (
            "bits per byte of held-out text",
            "evaluation",
            "bits_per_byte",
        ),
    ] {
        if let Some((step, value)) = log.column(kind, field).last() {
            fact(what, format!("{value:.4} (step {step})"));
        }
    }
    for (name, field) in [
        ("bigram", "bits_per_byte.bigram"),
        ("unigram", "bits_per_byte.unigram"),
        ("zstd -19", "bits_per_byte.zstd"),
    ] {
        if let Some(bits) = at(summary, field).as_f64() {
            fact(&format!("bits per byte of {name}"), format!("{bits:.4}"));
        }
    }
    let speeds: Vec<f64> = log
        .column("step", "tokens_per_s")
        .into_iter()
        .map(|(_, speed)| speed)
        .collect();
    if let Some(speed) = crate::bench::Spread::of(&speeds) {
        fact("tokens per second, the median step", short(speed.median));
    }
    if let Some((_, seconds)) = log.column("step", "elapsed_s").last() {
        fact(
            "time",
            humantime::format_duration(std::time::Duration::from_secs(*seconds as u64)).to_string(),
        );
    }
    if let Some(bytes) = summary["peak_memory_bytes"].as_u64() {
        fact("peak memory", crate::memory::in_words(bytes));
    }
    if let Some(device) = summary["device"].as_str() {
        fact("device", device.to_string());
    }
    let mut words = Vec::new();
    let outcome = Outcome::read(dir).ok().flatten();
    if let Some(Outcome {
        state: State::Diverged,
        reason: Some(reason),
        ..
    }) = outcome
    {
        words.push(format!("This run diverged: {reason}."));
    } else if done < training.steps {
        words.push(format!(
            "This run has taken {} of its {} steps.",
            thousands(done),
            thousands(training.steps)
        ));
    }
    if log.torn {
        words.push("The last line of metrics.jsonl is not whole: the run is writing it, or was killed while it did.".to_string());
    }
    Ok(Section {
        title: "Overview".to_string(),
        words,
        tables: vec![("The run".to_string(), table)],
        figures: Vec::new(),
    })
}

/// Guards, routers that collapsed, changes on resume.
fn events(log: &Log) -> Option<Section> {
    let mut table = Table::new(["step", "event", "what"]);
    for kind in ["guard", "router", "change"] {
        for line in log.of(kind) {
            let text = |field: &str| line[field].as_str().unwrap_or_default().to_string();
            let what = match kind {
                "change" => format!(
                    "{} is {} from here on; it was {}",
                    text("field"),
                    text("to"),
                    text("from")
                ),
                "guard" => format!("{} ({})", text("message"), text("action")),
                _ => text("message"),
            };
            table.push([line["step"].as_u64().into(), kind.into(), what.into()]);
        }
    }
    (!table.rows.is_empty()).then(|| Section {
        title: "Events".to_string(),
        tables: vec![("What went wrong, or was changed".to_string(), table)],
        ..Section::default()
    })
}

/// Every field, and those that are not the defaults of a run.
fn configuration(config: &RunConfig) -> Result<Section, ReportError> {
    let defaults = RunConfig {
        data: Default::default(),
        training: Default::default(),
        guard: Default::default(),
        schedule: Default::default(),
        optimizer: Default::default(),
        evaluation: Default::default(),
        model: config.model.clone(),
        sparse: config.sparse.clone(),
    };
    let mut changed = Table::new(["field", "default", "this run"]);
    for difference in differing_fields(&defaults, config)? {
        changed.push([
            difference.field.into(),
            difference.left.into(),
            difference.right.into(),
        ]);
    }
    let mut all = Table::new(["field", "value"]);
    let value = serde_json::to_value(config).unwrap_or_default();
    flatten("", &value, &mut |field, value| {
        all.push([field.into(), value.into()])
    });
    let mut tables = vec![("The whole configuration".to_string(), all)];
    if !changed.rows.is_empty() {
        tables.insert(
            0,
            (
                "Training settings that are not the defaults".to_string(),
                changed,
            ),
        );
    }
    Ok(Section {
        title: "Configuration".to_string(),
        tables,
        ..Section::default()
    })
}

/// Every leaf of `value` with its path.
pub(super) fn flatten(path: &str, value: &Value, leaf: &mut impl FnMut(String, String)) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                flatten(&path, value, leaf);
            }
        }
        Value::Null => {}
        Value::String(text) => leaf(path.to_string(), text.clone()),
        value => leaf(path.to_string(), value.to_string()),
    }
}
