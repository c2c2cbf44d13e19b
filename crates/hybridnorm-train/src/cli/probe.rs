//! `probe`: what can be told of placements in minutes, before any long run.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use hybridnorm_core::{ConfigError, InitScheme, Placement};

use super::contents::{Contents, draw};
use super::flags::{BaseFlags, RunFlags, one_init, one_of, one_placement, one_preset};
use super::memory::resident;
use super::probe_plan::ProbePlan;
use super::results::duration;
use super::run_data::RunData;
use super::shape_flags::WidthFlags;
use crate::device::{DeviceSpec, adapter_name};
use crate::error::Error;
use crate::lab::probe::search::{self, Next};
use crate::lab::probe::{
    Job, Lab, Line, Measure, PROBE, ProbeFile, SUMMARY, Setting, Summary, jobs,
};
use crate::report::REPORT;
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
#[command(
    mut_arg("preset", |arg| arg.help(preset_help())),
    mut_arg("config", |arg| arg.help("A run as TOML, whose model, data, optimiser and learning rate are measured")),
    mut_arg("seq", |arg| arg.help("Tokens in a sequence [default: the preset's]")),
    mut_arg("batch", |arg| arg.help("Sequences in a step [default: the preset's]")),
    mut_arg("lr", |arg| arg.help("Learning rate of short runs, and the first that a search tries [default: the preset's]")),
    mut_arg("seed", |arg| arg.help("Seed of the data order and of the initialisation, from which those of --seeds count")),
)]
pub struct ProbeFlags {
    #[command(flatten)]
    base: BaseFlags,
    #[command(flatten)]
    widths: WidthFlags,
    /// The placements to measure
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', default_value = PLACED, help = placements_help())]
    placements: Vec<Placement>,
    /// The depths to measure each at [default: the preset's]
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
    draw(&dir);
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
        let mut base = self.base.clone();
        if self.is_small() {
            base.seq.get_or_insert(SMALL.seq);
            base.batch.get_or_insert(SMALL.batch);
        }
        let run = RunFlags {
            base,
            ..RunFlags::default()
        };
        run.resolve()
    }

    /// Whether nothing says how large the model is to be.
    fn is_small(&self) -> bool {
        self.base.preset.is_none() && self.base.config.is_none()
    }

    /// Puts the sizes over the model.
    fn reshape(&self, config: &mut RunConfig) -> Result<(), ConfigError> {
        if self.is_small() {
            let model = &mut config.model;
            let width = self.widths.d_model.unwrap_or(SMALL.d_model);
            (model.d_model, model.n_heads) = (SMALL.d_model, SMALL.heads);
            model.n_kv_heads = SMALL.heads;
            model.d_ff = (8 * width / 3).next_multiple_of(8);
            model.head_dim = None;
        }
        let mut shape = config.model_config();
        self.widths.overlay(&mut shape, self.is_small());
        (config.model, config.sparse) = (shape.decoder, shape.sparse);
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
        let name = match (&self.base.config, preset) {
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
    let Shape {
        d_model,
        heads,
        seq,
        batch,
    } = SMALL;
    let depths = DEPTHS.map(|depth| depth.to_string()).join(", ");
    one_preset("Sizes of the model, each of which a flag overrides")
        + &format!(
            " [default: none, which is width {d_model}, {heads} heads, feed-forward 8/3 of the width, {depths} layers, {batch} sequences of {seq} tokens]"
        )
}

fn placements_help() -> String {
    one_placement("The placements to measure (see `placements`)")
}

fn inits_help() -> String {
    one_init("The initialisations to start `init` runs from")
}

fn measures_help() -> String {
    let names = Measure::ALL.iter().map(|(name, _)| *name);
    one_of("What to measure", names)
}
