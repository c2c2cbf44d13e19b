//! The flags of `compare`, and the runs they stand for.

use std::path::PathBuf;

use clap::Args;
use hybridnorm_core::{ConfigError, DecoderConfig, InitScheme, Placement};

use super::Ready;
use crate::amount::Amount;
use crate::cli::device_flags::DeviceFlags;
use crate::cli::flags::{RunFlags, one_placement};
use crate::cli::ready::ReadyRun;
use crate::cli::request::Request;
use crate::device::DeviceSpec;
use crate::engine::CONFIG;
use crate::error::Error;
use crate::lab::compare::{Arm, Axis, Contrast, Grid, Inits};

/// The placement that others are held against where none is named.
const BASELINE: &str = "pre";
/// Evaluations during a run, where nobody says how often: enough for a curve.
const EVALUATIONS: u64 = 10;

/// The flags of `compare`: those of `train`, which hold for every run, and what the runs differ in.
#[derive(Debug, Clone, Args)]
#[command(
    mut_arg("placement", |arg| arg.hide(true)),
    mut_arg("resume", |arg| arg.hide(true)),
    mut_arg("allow", |arg| arg.hide(true)),
    mut_arg("tui", |arg| arg.hide(true)),
    mut_arg("devices", |arg| arg.hide(true)),
    mut_arg("init", |arg| arg.help("`own`: each placement its best; `common`: the baseline's for all; `both`: one table of each; or one by name for all [default: own]")),
    mut_arg("device", |arg| arg.value_name("NAME,..").help("Where to compute; each of several has runs of its own (the CPU may be named more than once)")),
    mut_arg("seed", |arg| arg.help("The first seed; the others count up from it")),
    mut_arg("out", |arg| arg.help("The comparison's directory, new or to be continued [default: runs/compare-PRESET]")),
    mut_arg("eval_every", |arg| arg.help("Between two evaluations: 100, or 5M tokens; 0 evaluates at the end only [default: a tenth of the run]")),
    mut_arg("keep", |arg| arg.help("Checkpoints kept of each run, the newest; 0 keeps all [default: 1]")),
    mut_arg("max_time", |arg| arg.help("End the comparison, with a checkpoint of each run in progress, once this much time has passed: 90m, 11h 30m")),
)]
pub struct CompareFlags {
    /// Placements, the one that the others are held against first, or named with --baseline
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', help = placements_help())]
    placements: Vec<Placement>,
    /// Seeds: each decides data order and initialisation, alike for all
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Initialisations: each placement with each of them
    #[arg(
        long,
        value_name = "NAME,..",
        value_delimiter = ',',
        conflicts_with = "init"
    )]
    inits: Vec<InitScheme>,
    /// Highest learning rates: each placement with each of them
    #[arg(
        long,
        value_name = "RATE,..",
        value_delimiter = ',',
        conflicts_with = "lr"
    )]
    learning_rates: Vec<f64>,
    /// Numbers of layers: each placement with each of them
    #[arg(long, value_name = "N,..", value_delimiter = ',')]
    depths: Vec<usize>,
    /// What is judged: placement, init, learning-rate, depth [default: the first of these with more than one choice]
    #[arg(long, value_name = "WHAT")]
    contrast: Option<Axis>,
    /// The choice that the others are held against [default: the first]
    #[arg(long, value_name = "CHOICE")]
    baseline: Option<String>,
    /// Print the plan, and stop
    #[arg(long)]
    plan: bool,
    /// What all runs share.
    #[command(flatten)]
    run: RunFlags,
}

fn placements_help() -> String {
    one_placement("Placements to compare, the baseline first")
        + " [default: pre and the configured one; where something else differs, that alone]"
}

impl CompareFlags {
    pub(super) fn is_plan(&self) -> bool {
        self.plan
    }

    /// Resolves and validates everything, and reads the data.
    pub(super) fn resolve(&self) -> Result<Ready, Error> {
        self.refuse_what_does_nothing()?;
        let devices = self.devices()?;
        let mut shared = self.run.clone();
        shared.init = None;
        shared.devices = devices
            .first()
            .map_or_else(DeviceFlags::default, DeviceFlags::one);
        let base = shared.resolve()?;
        let model = &base.config.model;
        let placements = self.placements(&model.placement)?;
        let or = |listed: &Vec<usize>, one: usize| match listed.is_empty() {
            true => vec![one],
            false => listed.clone(),
        };
        let mut grid = Grid {
            inits: Inits::Own,
            rates: match self.learning_rates.is_empty() {
                true => vec![base.config.schedule.lr],
                false => self.learning_rates.clone(),
            },
            depths: or(&self.depths, model.n_layers),
            placements,
        };
        grid.inits = self.inits(&grid)?;
        let arms = grid.arms()?;
        let axis = self.contrast.unwrap_or_else(|| grid.widest_axis());
        let contrast = Contrast::new(&arms, axis, self.baseline.as_deref())?;
        let first_seed = base.config.training.seed;
        let seeds: Vec<u64> = (0..self.seeds)
            .map(|n| {
                let allowed = "small enough for all seeds to be numbers below 2^64";
                let refuse = || ConfigError::new("seed", first_seed, allowed);
                first_seed.checked_add(n).ok_or_else(refuse)
            })
            .collect::<Result<_, _>>()?;
        let out = match &self.run.out {
            Some(out) => out.clone(),
            None => {
                PathBuf::from("runs").join(format!("compare-{}", base.preset.unwrap_or("custom")))
            }
        };
        let mut requests = Vec::new();
        for arm in &arms {
            let of_arm = seeds
                .iter()
                .map(|seed| self.request(&shared, model, arm, *seed, &out));
            requests.push(of_arm.collect::<Result<Vec<_>, Error>>()?);
        }
        let first = self.request(
            &shared,
            model,
            arms.first().ok_or_else(nothing)?,
            first_seed,
            &out,
        )?;
        Ok(Ready {
            first: ReadyRun::of(first)?,
            max_time: self.run.max_time,
            inits: grid.inits,
            out,
            arms,
            contrast,
            seeds,
            devices,
            requests,
            base,
        })
    }

    /// What is listed; or, where arms would differ in nothing, Pre-Norm beside the configured placement or its default.
    fn placements(&self, configured: &Placement) -> Result<Vec<Placement>, ConfigError> {
        let differ = [
            self.inits.len(),
            self.learning_rates.len(),
            self.depths.len(),
        ];
        if !self.placements.is_empty() {
            return Ok(self.placements.clone());
        }
        let Some(row) = configured.row().filter(|_| differ == [0; 3]) else {
            return Ok(vec![configured.clone()]);
        };
        let other = match row.name {
            BASELINE => Placement::default(),
            _ => configured.clone(),
        };
        Ok(vec![BASELINE.parse()?, other])
    }

    /// The run of an arm with a seed.
    fn request(
        &self,
        shared: &RunFlags,
        model: &DecoderConfig,
        arm: &Arm,
        seed: u64,
        comparison: &std::path::Path,
    ) -> Result<Request, Error> {
        let out = arm.dir(comparison, seed);
        let mut flags = shared.clone();
        let configured = model.placement.to_string();
        if !self.placements.is_empty() || arm.placement != configured {
            flags.placement = Some(arm.placement.clone());
        }
        flags.init = Some(arm.init.to_string());
        flags.base.lr = Some(arm.lr);
        flags.base.seed = Some(seed);
        flags.keep = shared.keep.or(Some(1));
        let mut request = flags.resolve()?;
        let config = &mut request.config;
        config.model.n_layers = arm.n_layers;
        if self.run.base.config.is_none() {
            config.training.keep_best = false;
            if self.run.eval_every.is_none() {
                let every = config.training.steps.div_ceil(EVALUATIONS);
                config.training.eval_every = Amount::Steps(every);
            }
        }
        config.validate()?;
        request.resume = out.join(CONFIG).exists();
        request.out = out;
        Ok(request)
    }

    fn inits(&self, grid: &Grid) -> Result<Inits, Error> {
        if !self.inits.is_empty() {
            return Ok(Inits::Listed(self.inits.clone()));
        }
        let common = || {
            let typed = self.baseline.as_deref();
            let mut placements = grid.placements.iter();
            let named = placements.find(|p| Some(p.to_string().as_str()) == typed);
            let baseline = named.or(grid.placements.first());
            baseline.map_or(InitScheme::Megatron, Placement::default_init)
        };
        match self.run.init.as_deref() {
            None | Some("own") => Ok(Inits::Own),
            Some("common") => Ok(Inits::Common(common())),
            Some("both") => Ok(Inits::Both(common())),
            Some(name) => {
                let scheme: Result<InitScheme, ConfigError> = name.parse();
                scheme
                    .map(Inits::Common)
                    .map_err(|error| Error::Usage(format!("{error}; or own, common, both")))
            }
        }
    }

    fn devices(&self) -> Result<Vec<DeviceSpec>, Error> {
        let Some(names) = self.run.devices.device() else {
            return Ok(vec![DeviceSpec::best()?]);
        };
        let specs: Vec<DeviceSpec> = names.split(',').map(str::parse).collect::<Result<_, _>>()?;
        for (index, spec) in specs.iter().enumerate() {
            if specs[..index].contains(spec) && !spec.row().in_host_memory {
                let allowed = format!("{spec} once: it computes one run at a time");
                return Err(ConfigError::new("device", names, allowed).into());
            }
        }
        Ok(specs)
    }

    fn refuse_what_does_nothing(&self) -> Result<(), Error> {
        let run = &self.run;
        let refused = [
            (
                run.placement.is_some(),
                "--placement: compare takes --placements NAME,..",
            ),
            (
                run.resume,
                "--resume: compare continues what it finds in --out by itself",
            ),
            (run.tui, "--tui: compare shows several runs, each in lines"),
            (
                run.devices.several(),
                "--devices: compare gives each device runs of its own, with --device NAME,NAME",
            ),
        ];
        match refused.iter().find(|(given, _)| *given) {
            Some((_, message)) => Err(Error::Usage((*message).to_string())),
            None => Ok(()),
        }
    }
}

fn nothing() -> Error {
    Error::Usage("there is nothing to compare".to_string())
}
