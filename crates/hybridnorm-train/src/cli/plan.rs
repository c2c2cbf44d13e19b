//! `plan`: what a run would be, for people, or all of its configuration as TOML.

use core::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Command, Id};
use hybridnorm_interop::Pretrained;
use hybridnorm_moe::SparseConfig;

use super::flags::RunFlags;
use super::memory::MemoryPlan;
use super::published::Published;
use super::ready::ReadyRun;
use super::run_data::SideFacts;
use crate::amount::Amount;
use crate::data::SplitRule;
use crate::device::DeviceSpec;
use crate::error::Error;
use crate::hub::{self, Want};
use crate::import::run_of;
use crate::model::refuse_run;
use crate::recipe::{Decay, Schedule, ScheduleShape};
use crate::run::{DataConfig, LOOKS, RunConfig, TrainingConfig};
use crate::sizes::{Experts, Parameters, counted, epochs, thousands};

/// What can be done with a plan.
const NEXT: &str = "next      hybridnorm-train with the same flags trains it; `plan --toml` prints its whole configuration, for --config";

/// The flags of `plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanFlags {
    /// The run.
    #[command(flatten)]
    run: RunFlags,
    /// Print the whole configuration with every default, ready for --config
    #[arg(long)]
    toml: bool,
    /// Show what a Hugging Face folder or `hf:owner/name[@revision]` holds instead: architecture, placement, sizes; of a folder, whether its tensors fit.
    /// With --toml, its configuration
    #[arg(long, value_name = "DIR", conflicts_with_all = run_flags())]
    hf: Option<PathBuf>,
}

/// The flags of a run: none of them says anything of a folder.
fn run_flags() -> Vec<Id> {
    let all = RunFlags::augment_args(Command::new("plan"));
    all.get_arguments()
        .map(|arg| arg.get_id().clone())
        .collect()
}

pub(super) fn run(flags: &PlanFlags, out: &mut impl Write) -> Result<(), Error> {
    if let Some(spec) = &flags.hf {
        return published(spec, flags.toml, out);
    }
    if flags.toml {
        return print_toml(&flags.run.resolve()?.config, out);
    }
    let prepared = ReadyRun::new(&flags.run)?;
    let request = &prepared.request;
    for device in std::iter::once(&request.device).chain(&request.replicas) {
        device.open()?;
    }
    let memory = MemoryPlan::of(&prepared)?;
    write!(out, "{}{memory}", Plan(&prepared)).map_err(Error::Output)?;
    memory.check()?;
    writeln!(out, "{NEXT}").map_err(Error::Output)
}

/// What a published model is. From the Hub its configuration alone is fetched.
fn published(spec: &Path, toml: bool, out: &mut impl Write) -> Result<(), Error> {
    let dir = hub::resolve_for(spec, Want::Config)?;
    refuse_run(&dir)?;
    let (_, imported) = Pretrained::describe(&dir)?;
    if toml {
        let tokenizer = DataConfig::default().tokenizer;
        return print_toml(&run_of(&imported.model, tokenizer), out);
    }
    if dir != spec {
        let shown = Published::of_config(&imported, format!("{}, not fetched", spec.display()));
        return write!(out, "{shown}").map_err(Error::Output);
    }
    let folder = Pretrained::open(&dir)?;
    write!(out, "{}", Published::of(&folder)).map_err(Error::Output)?;
    Ok(folder.check(&DeviceSpec::best()?.open()?)?)
}

fn print_toml(config: &RunConfig, out: &mut impl Write) -> Result<(), Error> {
    let text = toml::to_string(config).map_err(|error| Error::Usage(error.to_string()))?;
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

/// A run as it is shown before it starts.
pub(super) struct Plan<'a>(pub &'a ReadyRun);

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model(f)?;
        self.data(f)?;
        self.training(f)?;
        let config = &self.0.request.config;
        let warnings = config.model.warnings().into_iter();
        for warning in warnings.chain(costly_looks(&config.training)) {
            writeln!(f, "warning   {warning}")?;
        }
        Ok(())
    }
}

impl Plan<'_> {
    fn model(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.0.request;
        let config = request.config.model_config();
        let (model, parameters) = (&config.decoder, Parameters::of(&config));
        writeln!(
            f,
            "model     {}, {}: {} layers, width {}, {}{} heads of {} on {} key/value heads",
            request.preset.unwrap_or("from a configuration file"),
            parameters.map_err(|_| fmt::Error)?,
            model.n_layers,
            model.d_model,
            match Experts::of(&config).is_some_and(|experts| experts.everywhere()) {
                true => String::new(),
                false => format!("feed-forward {}, ", model.d_ff),
            },
            model.n_heads,
            model.head_dim(),
            model.n_kv_heads,
        )?;
        writeln!(
            f,
            "          vocabulary {} ({}), padded to {}; head {}",
            thousands(model.vocab_size as u64),
            request.tokenizer.name(),
            thousands(model.padded_vocab_size as u64),
            if model.tied { "tied" } else { "untied" },
        )?;
        if let Some(experts) = Experts::of(&config) {
            writeln!(f, "experts   {experts}")?;
            writeln!(f, "balance   {}", Balance(experts.sparse()))?;
        }
        writeln!(f, "placement {}", model.placement)?;
        let equations = model
            .placement
            .equations(model.n_layers)
            .map_err(|_| fmt::Error)?;
        for line in equations.to_string().lines() {
            writeln!(f, "          {line}")?;
        }
        writeln!(
            f,
            "init      {}, seed {}",
            model.init_scheme(),
            model.init.seed
        )
    }

    fn data(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let data = &self.0.data;
        writeln!(f, "data      {}", data.description)?;
        writeln!(
            f,
            "          {} in {}, blake3 {}",
            counted(data.bytes, "byte"),
            counted(data.documents, "document"),
            data.hash,
        )?;
        for note in &data.notes {
            writeln!(f, "          {note}")?;
        }
        let part = match data.rule {
            SplitRule::Documents => "",
            SplitRule::Tails => ", without their ends",
        };
        writeln!(f, "          training   {}{part}", Side(&data.train))?;
        let part = match data.rule {
            SplitRule::Documents => ", chosen by hash",
            SplitRule::Tails => ", their ends",
        };
        writeln!(f, "          validation {}{part}", Side(&data.validation))?;
        let config = &self.0.request.config.data;
        if config.document_mask {
            writeln!(f, "          tokens attend to their own document only")?;
        }
        if config.repetition_filter {
            writeln!(
                f,
                "          labels of sequences that repeat themselves count for nothing"
            )?;
        }
        Ok(())
    }

    fn training(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = &self.0.request;
        let (training, schedule) = (&request.config.training, request.config.schedule());
        writeln!(
            f,
            "training  {} steps of {} x {} tokens{}: {} tokens, {}",
            thousands(training.steps),
            training.batch,
            training.seq,
            match training.accumulation() {
                1 => String::new(),
                n => format!(" (in {n} micro-batches of {})", training.micro_batch),
            },
            thousands(schedule.total),
            epochs(schedule.total, self.0.data.train.tokens),
        )?;
        writeln!(f, "          {}", request.config.optimizer)?;
        writeln!(
            f,
            "schedule  {}: up to {:e} over {} tokens, then {}",
            schedule.shape,
            schedule.peak,
            thousands(schedule.warmup),
            afterwards(&schedule),
        )?;
        writeln!(
            f,
            "evaluate  {} sequences {}, {} at the end",
            self.0.interval.windows(),
            every(training.eval_every),
            self.0.last.windows(),
        )?;
        if !training.diagnostics_every.is_zero() {
            writeln!(
                f,
                "diagnose  every layer {}, on {} sequences: about {:.1} % of the time",
                every(training.diagnostics_every),
                training.looked_at(),
                100.0 * training.diagnostics_share(),
            )?;
        }
        writeln!(
            f,
            "device    {} ({})",
            request.device_names(),
            match request.replicas.len() {
                0 => request.device.row().summary.to_string(),
                n => format!(
                    "data-parallel, {} x {} sequences of a step on each",
                    training.accumulation() / (n + 1),
                    training.micro_batch
                ),
            }
        )?;
        writeln!(
            f,
            "output    {}{}, checkpoints {}",
            request.out.display(),
            if request.resume { " (continued)" } else { "" },
            every(training.checkpoint_every),
        )?;
        let guard = &request.config.guard;
        writeln!(
            f,
            "guard     {} after a spike (beyond {} deviations of {} steps), {} after a figure that is not finite",
            guard.spike, guard.sigmas, guard.window, guard.non_finite,
        )
    }
}

/// What is to be said where looks at every layer slow the run down.
pub(super) fn costly_looks(training: &TrainingConfig) -> Option<String> {
    let share = training.diagnostics_share();
    let cheap = (training.looked_at() as f64 / (LOOKS * training.batch as f64)).ceil();
    (share > LOOKS).then(|| {
        format!(
            "looking at every layer takes about {:.0} % of the time: with --diagnostics {cheap} or more, in a long run, less than {:.0} %",
            100.0 * share,
            100.0 * LOOKS
        )
    })
}

/// What a schedule does after its warm-up.
fn afterwards(schedule: &Schedule) -> String {
    // As f32: a product of two decimals is a bit off in the seventeenth digit, which nobody asked for.
    let down = format!("down to {:e}", (schedule.peak * schedule.floor) as f32);
    match schedule.shape {
        ScheduleShape::Constant => "constant".to_string(),
        ScheduleShape::InverseSqrt => "down with its root".to_string(),
        ScheduleShape::Wsd => {
            let Decay { fraction, shape } = schedule.decay;
            format!("constant, {down} ({shape}) in the last {fraction} of the run")
        }
        _ => down,
    }
}

/// What keeps the routers of a sparse model in balance.
struct Balance<'a>(&'a SparseConfig);

impl fmt::Display for Balance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (losses, router) = (&self.0.losses, &self.0.router);
        let weights = [
            (losses.balance, "load balancing"),
            (losses.z, "router z-loss"),
        ];
        let mut parts: Vec<String> = weights
            .into_iter()
            .filter(|(weight, _)| *weight != 0.0)
            .map(|(weight, name)| format!("{name} {weight}"))
            .collect();
        parts.extend(
            router
                .bias_update
                .map(|rate| format!("selection bias moved by {rate} a step")),
        );
        parts.extend(router.jitter.map(|jitter| format!("jitter {jitter}")));
        match parts.is_empty() {
            true => f.write_str("by nothing: no loss and no selection bias"),
            false => f.write_str(&parts.join(", ")),
        }
    }
}

fn every(amount: Amount) -> String {
    match amount {
        Amount::Steps(0) | Amount::Tokens(0) => "at the end only".to_string(),
        Amount::Steps(1) => "every step".to_string(),
        _ => format!("every {amount}"),
    }
}

struct Side<'a>(&'a SideFacts);

impl fmt::Display for Side<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SideFacts {
            tokens,
            bytes,
            documents,
        } = self.0;
        write!(
            f,
            "{} ({}) in {}",
            counted(*tokens, "token"),
            counted(*bytes, "byte"),
            counted(*documents, "document"),
        )
    }
}
