//! `probe`: what can be told of placements in minutes, before any long run.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use hybridnorm_core::{ConfigError, InitScheme, PLACEMENTS, Placement};

use super::contents::Contents;
use super::flags::{BaseFlags, one_of};
use super::memory::resident;
use super::probe_plan::ProbePlan;
use super::results::duration;
use super::run_data::RunData;
use crate::device::{DeviceSpec, adapter_name};
use crate::error::Error;
use crate::lab::probe::search::{self, Next};
use crate::lab::probe::{
    Job, Lab, Line, Measure, PROBE, ProbeFile, SUMMARY, Setting, Summary, jobs,
};
use crate::presets;
use crate::report::{self, REPORT};
use crate::run::RunConfig;

/// Sizes of the model and of a step where neither a preset nor a configuration is named: small, for depth costs enough.
const SMALL: Shape = Shape {
    d_model: 64,
    heads: 4,
    seq: 128,
    batch: 4,
};
/// Its depths.
const DEPTHS: [usize; 3] = [8, 16, 32];
/// The placements of the paper's figure 2, and HybridNorm*.
const PLACED: &str = "pre,post,hybrid,hybrid-star";

struct Shape {
    d_model: usize,
    heads: usize,
    seq: usize,
    batch: usize,
}

/// The flags of `probe`.
#[derive(Debug, Clone, Args)]
pub struct ProbeFlags {
    /// Sizes of the model
    #[arg(long, value_name = "NAME", help = preset_help())]
    preset: Option<String>,
    /// A run as TOML, whose model, data, optimiser and learning rate are measured
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Width of the stream [default: 64, or the preset's]
    #[arg(long, value_name = "N")]
    d_model: Option<usize>,
    /// Query heads [default: 4, or the preset's]
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Key/value heads [default: --heads, or the preset's]
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Inner width of the feed-forward layer [default: 8/3 of the width, or the preset's]
    #[arg(long, value_name = "N")]
    ffn: Option<usize>,
    /// Tokens in a sequence [default: 128, or the preset's]
    #[arg(long, value_name = "N")]
    seq: Option<usize>,
    /// Sequences in a step [default: 4, or the preset's]
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// A folder that `prepare` made; or text: .txt, .md, .jsonl (field `text`) or .parquet, a file, a directory or a pattern
    /// [default: the sources of the crates in Cargo.lock]
    #[arg(long, value_name = "FILE|DIR")]
    data: Option<PathBuf>,
    /// `byte`, or the path of a Hugging Face tokenizer.json [default: byte]
    #[arg(long, value_name = "byte|FILE")]
    tokenizer: Option<String>,
    /// Learning rate of short runs, and the first that a search tries [default: the preset's]
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    lr: Option<f64>,
    /// The placements to measure
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = PLACED, help = placements_help())]
    placements: Vec<Placement>,
    /// The depths to measure each at [default: 8,16,32, or the preset's]
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    depths: Vec<usize>,
    /// The initialisations to start from, beside each placement's own
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = "normal,depth-scaled,megatron", help = inits_help())]
    inits: Vec<InitScheme>,
    /// What to measure
    #[arg(long, value_name = "WHAT,..", value_delimiter = ',', default_value = "layers,coupling,learning-rate,init", help = measures_help())]
    measure: Vec<Measure>,
    /// Steps of a short run
    #[arg(long, value_name = "N", default_value_t = 20)]
    steps: u64,
    /// Times that each is measured, from other weights and on other batches
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Seed of the data order and of the initialisation, from which those of --seeds count
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the measurements go; those that are there are not taken again [default: runs/probe-PRESET]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to compute [default: the best one compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceSpec>,
    /// Measure models that need more memory than there seems to be
    #[arg(long)]
    ignore_memory: bool,
    /// End standard output with one JSON object; the lines for people go to standard error
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &ProbeFlags, out: &mut impl Write) -> Result<(), Error> {
    let request = flags.request()?;
    let mut config = request.config.clone();
    flags.reshape(&mut config)?;
    let config = crate::lab::probe::short(config, flags.steps);
    let jobs = flags.jobs(&config)?;
    let mut request = request;
    request.config = config.clone();
    let dir = flags.out(request.preset);
    let spec = flags.device.clone().map_or_else(DeviceSpec::best, Ok)?;
    let RunData { facts, batches, .. } = RunData::read(&request)?;
    let mut setting = Setting {
        program: env!("CARGO_PKG_VERSION").to_string(),
        device: spec.to_string(),
        data: Some(batches.identity.clone()),
        steps: flags.steps,
        warmup_steps: crate::lab::probe::warmup(flags.steps),
        config,
    };
    let known = ProbeFile::check(&dir, &setting)?;
    let device = spec.open()?;
    setting.device = format!("{spec} ({})", adapter_name(&device));
    let lab = Lab::new(&setting, &device, Arc::new(batches))?;
    let mut tell = |text: String| {
        if flags.json {
            // Where standard error is gone, the JSON object says it all.
            let _ = write!(io::stderr(), "{text}");
            return Ok(());
        }
        let written = write!(out, "{text}").and_then(|()| out.flush());
        written.map_err(Error::Output)
    };
    let plan = ProbePlan {
        setting: &setting,
        jobs: &jobs,
        known: &known,
        data: &facts,
        device: &spec,
        dir: &dir,
    };
    tell(plan.to_string())?;
    if !flags.ignore_memory {
        plan.check_memory(resident())?;
    }
    let seconds = plan.estimate(&lab)?;
    tell(format!(
        "time      {}\n\n",
        match seconds {
            0.0 => "none: everything was measured before".to_string(),
            seconds => format!("about {}, going by two steps just timed", duration(seconds)),
        }
    ))?;
    let mut file = ProbeFile::open(&dir, &setting)?;
    for (number, job) in (1..).zip(&jobs) {
        take(&lab, job, setting.config.schedule.lr, &mut file, &|line| {
            let told = told(line);
            // Where standard error is gone, the table says it all.
            let _ = writeln!(
                io::stderr(),
                "{number} of {}: {}: {}: {told}",
                jobs.len(),
                job.subject,
                job.measure,
            );
        })?;
    }
    let summary = Summary::new(&setting, &jobs, file.lines());
    summary.save(&dir)?;
    if let Err(error) = report::write(&dir) {
        // The measurements are taken and saved; their picture can be drawn again.
        let _ = writeln!(io::stderr(), "warning: no report: {error}");
    }
    let contents = Contents {
        dir: &dir,
        files: &[
            (REPORT, "the same in pictures, on one page"),
            (SUMMARY, "the tables"),
            (PROBE, "every measurement"),
        ],
    };
    tell(format!("\n{summary}\n{contents}"))?;
    if flags.json {
        let text = serde_json::to_string(&summary).map_err(|error| Error::Output(error.into()))?;
        writeln!(out, "{text}").map_err(Error::Output)?;
    }
    Ok(())
}

/// Takes the measurements of a job that are not in the file yet.
fn take(
    lab: &Lab,
    job: &Job,
    start: f64,
    file: &mut ProbeFile,
    tell: &dyn Fn(&Line),
) -> Result<(), Error> {
    loop {
        let lr = match job.measure {
            Measure::LearningRate => match search::next(start, &job.trials(file.lines())) {
                Next::Try(lr) => Some(lr),
                Next::Done => return Ok(()),
            },
            _ if job.is_done(file.lines()) => return Ok(()),
            _ => None,
        };
        let line = lab.measure(job, lr)?;
        tell(&line);
        file.append(line)?;
    }
}

/// A measurement in a few words.
fn told(line: &Line) -> String {
    let (trial, seconds) = match line {
        Line::Setting(_) => return String::new(),
        Line::Layers(layers) => {
            let end = match &layers.diverged {
                Some(diverged) => {
                    format!("diverged in step {}: {}", diverged.step, diverged.reason)
                }
                None => "seen".to_string(),
            };
            return format!("{end}, {}", duration(layers.seconds));
        }
        Line::Coupling(coupling) => return format!("seen, {}", duration(coupling.seconds)),
        Line::LearningRate(trial) | Line::Init(trial) => (trial, duration(trial.seconds)),
    };
    let end = match (&trial.diverged, trial.losses.first(), trial.final_loss) {
        (Some(diverged), ..) => format!("diverged: {}", diverged.reason),
        (None, Some(first), Some(last)) => format!("holds, loss {first:.3} to {last:.3}"),
        (None, ..) => "holds".to_string(),
    };
    format!("rate {:.2e} {end}, {seconds}", trial.lr)
}

impl ProbeFlags {
    /// The run that everything is measured of, but for its shape.
    fn request(&self) -> Result<super::request::Request, Error> {
        let small = self.is_small().then_some(SMALL);
        let base = BaseFlags {
            preset: self.preset.clone(),
            config: self.config.clone(),
            seq: self.seq.or(small.as_ref().map(|small| small.seq)),
            batch: self.batch.or(small.as_ref().map(|small| small.batch)),
            lr: self.lr,
            seed: self.seed,
            data: self.data.clone(),
            tokenizer: self.tokenizer.clone(),
        };
        base.run_flags().resolve()
    }

    /// Whether nothing says how large the model is to be.
    fn is_small(&self) -> bool {
        self.preset.is_none() && self.config.is_none()
    }

    /// Puts the sizes over the model.
    fn reshape(&self, config: &mut RunConfig) -> Result<(), ConfigError> {
        let model = &mut config.model;
        if self.is_small() {
            (model.d_model, model.n_heads) = (SMALL.d_model, SMALL.heads);
            model.n_kv_heads = self.heads.unwrap_or(SMALL.heads);
            model.d_ff = (8 * self.d_model.unwrap_or(SMALL.d_model) / 3).next_multiple_of(8);
            model.head_dim = None;
        }
        for (field, flag) in [
            (&mut model.d_model, self.d_model),
            (&mut model.n_heads, self.heads),
            (&mut model.n_kv_heads, self.kv_heads),
            (&mut model.d_ff, self.ffn),
        ] {
            *field = flag.unwrap_or(*field);
        }
        for (field, value) in [("steps", self.steps), ("seeds", self.seeds)] {
            if value == 0 {
                return Err(ConfigError::new(field, value, "at least 1"));
            }
        }
        Ok(())
    }

    /// Everything to measure, each model of which can be built.
    fn jobs(&self, config: &RunConfig) -> Result<Vec<Job>, Error> {
        let own = config.model.n_layers;
        let depths = match (&self.depths[..], self.is_small()) {
            ([], true) => DEPTHS.to_vec(),
            ([], false) => vec![own],
            (depths, _) => depths.to_vec(),
        };
        if config.schedule.lr == 0.0 {
            return Err(ConfigError::new("lr", 0, "above 0").into());
        }
        unique("placements", &self.placements)?;
        unique("depths", &depths)?;
        unique("inits", &self.inits)?;
        unique("measure", &self.measure)?;
        let found = jobs(
            &self.measure,
            &self.placements,
            &depths,
            &self.inits,
            self.seeds,
        );
        for job in &found {
            job.subject.config(config)?;
        }
        Ok(found)
    }

    fn out(&self, preset: Option<&str>) -> PathBuf {
        let name = match (&self.config, preset) {
            _ if self.is_small() => "small".to_string(),
            (Some(file), _) => super::request::stem(file),
            (None, preset) => preset.unwrap_or("model").to_string(),
        };
        let default = || PathBuf::from("runs").join(format!("probe-{name}"));
        self.out.clone().unwrap_or_else(default)
    }
}

/// Refuses a list that names something twice.
fn unique<T: PartialEq + ToString>(field: &'static str, values: &[T]) -> Result<(), ConfigError> {
    let twice = values
        .iter()
        .enumerate()
        .find(|(index, value)| values[..*index].contains(value));
    match twice {
        Some((_, value)) => Err(ConfigError::new(
            field,
            value.to_string(),
            "each of them once",
        )),
        None => Ok(()),
    }
}

fn preset_help() -> String {
    let what = "Sizes of the model, each of which a flag overrides";
    one_of(what, presets::names()) + " [default: none, the sizes below]"
}

fn placements_help() -> String {
    let names = PLACEMENTS.iter().map(|row| row.name);
    one_of("The placements to measure (see `placements`)", names)
}

fn inits_help() -> String {
    let names = InitScheme::ALL.iter().map(|(name, _)| *name);
    one_of("The initialisations to start `init` runs from", names)
}

fn measures_help() -> String {
    let names = Measure::ALL.iter().map(|(name, _)| *name);
    one_of("What to measure", names)
}
