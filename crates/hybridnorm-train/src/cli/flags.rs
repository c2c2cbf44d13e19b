//! The flags of a run.

use core::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hybridnorm_core::{ConfigError, InitScheme, PLACEMENTS, Placement};

use super::device_flags::DeviceFlags;
use super::preset_run::DEFAULT_PRESET;
use crate::amount::{Amount, count};
use crate::engine::{Precision, Recompute};
use crate::guard::{Action, GuardConfig};
use crate::presets;
use crate::recipe::{OptimizerName, ScheduleShape};
use crate::run::TrainingConfig;

/// The parts of `--help`.
pub(super) const MODEL: &str = "Model";
const TRAINING: &str = "Training";
pub(super) const DEVICE: &str = "Device and memory";
const DATA: &str = "Data";
const RUN_DIRECTORY: &str = "Run directory";
const REPORTS: &str = "Reports";
const GUARDS: &str = "When something goes wrong";

/// What is said of a run by every command that computes one, or a part of one.
#[derive(Debug, Clone, Default, Args)]
pub struct BaseFlags {
    /// Size of the model
    #[arg(long, help_heading = MODEL, display_order = 0, value_name = "NAME", help = preset_help())]
    pub(super) preset: Option<String>,
    /// Tokens in a sequence
    #[arg(long, help_heading = TRAINING, value_name = "N", help = or("Tokens in a sequence", TrainingConfig::default().seq))]
    pub(super) seq: Option<usize>,
    /// Sequences in a step
    #[arg(long, help_heading = TRAINING, value_name = "N", help = or("Sequences in a step", TrainingConfig::default().batch))]
    pub(super) batch: Option<usize>,
    /// Highest learning rate [default: that of the preset, which `plan` shows]
    #[arg(long, help_heading = TRAINING, value_name = "RATE", allow_negative_numbers = true)]
    pub(super) lr: Option<f64>,
    /// Seed of the data order and of the initialisation
    #[arg(long, help_heading = TRAINING, value_name = "N", help = or("Seed of the data order and of the initialisation", TrainingConfig::default().seed))]
    pub(super) seed: Option<u64>,
    /// A folder that `prepare` made; or text: .txt, .md, .jsonl (field `text`) or .parquet, a file, a directory or a pattern
    /// [default: the sources of the crates in Cargo.lock]
    #[arg(long, help_heading = DATA, value_name = "FILE|DIR")]
    pub(super) data: Option<PathBuf>,
    /// `byte`, or the path of a Hugging Face tokenizer.json [default: byte]
    #[arg(long, help_heading = DATA, value_name = "byte|FILE")]
    pub(super) tokenizer: Option<String>,
    /// A whole run as TOML (`plan --toml` prints one); flags override it
    #[arg(long, help_heading = RUN_DIRECTORY, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// The flags of `train` and `plan`. What is not given comes from `--config`, then from the preset.
#[derive(Debug, Clone, Default, Args)]
pub struct RunFlags {
    /// Where the norms stand
    #[arg(long, help_heading = MODEL, value_name = "NAME", help = placement_help())]
    pub(super) placement: Option<String>,
    /// Initialisation
    #[arg(long, help_heading = MODEL, value_name = "NAME", help = init_help())]
    pub(super) init: Option<String>,
    /// Optimiser steps
    #[arg(long, help_heading = TRAINING, value_name = "N", help = or("Optimiser steps", TrainingConfig::default().steps))]
    pub(super) steps: Option<u64>,
    /// As many steps as make up this many tokens: 20M, 1.5B
    #[arg(long, help_heading = TRAINING, value_name = "N", conflicts_with = "steps", value_parser = token_count)]
    pub(super) tokens: Option<u64>,
    #[command(flatten)]
    pub(super) base: BaseFlags,
    /// Sequences in one forward and backward pass; divides --batch [default: the configured one, or the next smaller divisor]
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    pub(super) micro_batch: Option<usize>,
    /// Micro-batches in a step, on each device; with --batch or --micro-batch it gives the other one
    #[arg(long, help_heading = TRAINING, value_name = "N")]
    pub(super) accumulation: Option<usize>,
    /// What matrices are multiplied in: f32, bf16
    #[arg(long, help_heading = DEVICE, value_name = "TYPE", help = or("What matrices are multiplied in: f32, bf16", Precision::default()))]
    pub(super) precision: Option<Precision>,
    /// What is computed twice to save memory: none, block [default: none]
    #[arg(long, help_heading = DEVICE, value_name = "WHAT")]
    pub(super) recompute: Option<Recompute>,
    /// Rows of logits that exist at once [default: as many as make 16 MiB, or 512 where that is more]
    #[arg(long, help_heading = DEVICE, value_name = "N")]
    pub(super) logit_rows: Option<usize>,
    /// Start a run that needs more memory than there seems to be
    #[arg(long, help_heading = DEVICE)]
    pub(super) ignore_memory: bool,
    /// Learning rate after the warm-up
    #[arg(long, help_heading = TRAINING, value_name = "NAME", help = schedule_help())]
    pub(super) schedule: Option<String>,
    /// Optimiser
    #[arg(long, help_heading = TRAINING, value_name = "NAME", help = optimizer_help())]
    pub(super) optimizer: Option<String>,
    /// Tokens of linear warm-up: 50000, 2M [default: 5 % of the run]
    #[arg(long, help_heading = TRAINING, value_name = "N", value_parser = token_count)]
    pub(super) warmup_tokens: Option<u64>,
    #[command(flatten)]
    pub(super) devices: DeviceFlags,
    /// The run directory, new or with --resume [default: runs/PRESET-PLACEMENT, numbered where that exists]
    #[arg(long, help_heading = RUN_DIRECTORY, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Between two evaluations: 100, or 5M tokens; 0 evaluates at the end only
    #[arg(long, help_heading = REPORTS, value_name = "AMOUNT", help = or("Between two evaluations: 100, or 5M tokens; 0 evaluates at the end only", TrainingConfig::default().eval_every))]
    pub(super) eval_every: Option<Amount>,
    /// Between two looks at every layer, beside that at the first step (gradient norms, activations, attention): 50, or 5M tokens;
    /// 0 for none [default: 0]
    #[arg(long, help_heading = REPORTS, value_name = "AMOUNT")]
    pub(super) diagnostics: Option<Amount>,
    /// Between two checkpoints: 100, or 5M tokens; 0 writes one at the end only
    #[arg(long, help_heading = RUN_DIRECTORY, value_name = "AMOUNT", help = or("Between two checkpoints: 100, or 5M tokens; 0 writes one at the end only", TrainingConfig::default().checkpoint_every))]
    pub(super) checkpoint_every: Option<Amount>,
    /// Checkpoints kept, the newest, beside the best; 0 keeps all
    #[arg(long, help_heading = RUN_DIRECTORY, value_name = "N", help = or("Checkpoints kept, the newest, beside the best; 0 keeps all", TrainingConfig::default().keep_checkpoints))]
    pub(super) keep: Option<usize>,
    /// Keep one checkpoint for good every so often: 1000, or 50M tokens; 0 for none [default: 0]
    #[arg(long, help_heading = RUN_DIRECTORY, value_name = "AMOUNT")]
    pub(super) keep_every: Option<Amount>,
    /// After a spike of loss or gradient norm: warn, skip, rollback, stop
    #[arg(long, help_heading = GUARDS, value_name = "ACTION", help = or("After a spike of loss or gradient norm: warn, skip, rollback, stop", GuardConfig::default().spike))]
    pub(super) on_spike: Option<Action>,
    /// After a loss or gradient that is not finite: skip, rollback, stop
    #[arg(long, help_heading = GUARDS, value_name = "ACTION", help = or("After a loss or gradient that is not finite: skip, rollback, stop", GuardConfig::default().non_finite))]
    pub(super) on_non_finite: Option<Action>,
    /// End the run, with a checkpoint, once this much time has passed: 90m, 11h 30m
    #[arg(long, help_heading = RUN_DIRECTORY, value_name = "TIME", allow_hyphen_values = true, value_parser = humantime::parse_duration)]
    pub(super) max_time: Option<Duration>,
    /// Also write figures as TensorBoard event files, to tensorboard/ in the run directory
    #[arg(long, help_heading = REPORTS)]
    pub(super) tensorboard: bool,
    /// Show Burn's dashboard instead of lines (in a build with the feature `tui`)
    #[arg(long, help_heading = REPORTS)]
    pub(super) tui: bool,
    /// Continue the run in --out, or else the latest of the default directories
    #[arg(long, help_heading = RUN_DIRECTORY, conflicts_with = "config")]
    pub(super) resume: bool,
    /// A field that may differ on --resume although it changes what is computed, e.g. schedule.lr
    #[arg(long, help_heading = RUN_DIRECTORY, value_name = "FIELD", requires = "resume")]
    pub(super) allow: Vec<String>,
}

fn token_count(text: &str) -> Result<u64, ConfigError> {
    count(text)
        .ok_or_else(|| ConfigError::new("tokens", text, "a whole number: 20000000, 20M, 1.5B"))
}

/// Help that ends in a list of names.
pub(super) fn one_of<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> String {
    format!("{what}: {}", names.collect::<Vec<_>>().join(", "))
}

/// Help that ends in the names of all presets.
pub(super) fn one_preset(what: &str) -> String {
    one_of(what, presets::names())
}

/// Help that ends in the names of all placements.
pub(super) fn one_placement(what: &str) -> String {
    one_of(what, PLACEMENTS.iter().map(|row| row.name))
}

/// Help that ends in the names of all initialisations.
pub(super) fn one_init(what: &str) -> String {
    one_of(what, InitScheme::ALL.iter().map(|(name, _)| *name))
}

fn preset_help() -> String {
    one_preset("Size of the model") + &format!(" [default: {DEFAULT_PRESET}]")
}

fn placement_help() -> String {
    one_placement("Where the norms stand (see `placements`)")
        + &format!(" [default: {}]", Placement::default())
}

fn init_help() -> String {
    one_init("Initialisation") + " [default: the placement's own]"
}

fn schedule_help() -> String {
    one_of("Learning rate after the warm-up", ScheduleShape::names())
        + &format!(" [default: {}]", ScheduleShape::default())
}

pub(super) fn optimizer_help() -> String {
    one_of("Optimiser", OptimizerName::names())
        + &format!(" [default: {}]", OptimizerName::default())
}

/// Help that ends in a default.
fn or(what: &str, default: impl fmt::Display) -> String {
    format!("{what} [default: {default}]")
}
