//! What a comparison would be: runs, tokens, memory, time.

use core::fmt;
use std::collections::BTreeMap;

use super::Ready;
use crate::bench::StepBench;
use crate::cli::memory::MemoryPlan;
use crate::cli::plan::costly_looks;
use crate::cli::results::duration;
use crate::device::DeviceSpec;
use crate::error::Error;
use crate::lab::compare::Job;
use crate::lab::compare::stats::LEAST;
use crate::sizes::{Parameters, epochs, thousands};

/// Steps that are timed before anything starts, and before those.
const MEASURED: (u64, u64) = (3, 1);
/// A token that is only predicted costs this part of one that is trained on: a forward pass of a forward and a backward one.
const FORWARD: f64 = 1.0 / 3.0;

/// A comparison as it is shown before it starts.
pub(super) struct ComparisonPlan<'a> {
    ready: &'a Ready,
    jobs: &'a [Job],
    /// Of the run that takes most.
    memory: MemoryPlan,
    /// Runs that share the host's memory.
    at_once: usize,
}

impl<'a> ComparisonPlan<'a> {
    pub(super) fn new(ready: &'a Ready, jobs: &'a [Job]) -> Result<Self, Error> {
        let in_host = |spec: &&DeviceSpec| spec.row().in_host_memory;
        let sharing = ready.devices.iter().filter(in_host).count();
        let memory = ready.memory()?;
        let most = memory.into_iter().max_by_key(MemoryPlan::bytes);
        Ok(Self {
            ready,
            jobs,
            memory: most.ok_or_else(|| Error::Usage("there is nothing to compare".to_string()))?,
            at_once: sharing.clamp(1, jobs.len().max(1)),
        })
    }

    /// Refuses runs that the device cannot hold.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.memory.check()?;
        self.memory.check_several(self.at_once)
    }

    /// How long the runs that are left would take: a few steps of each size are taken, and timed.
    pub(super) fn measure(&self) -> Result<Estimate, Error> {
        let Some(spec) = self.ready.devices.first() else {
            return Ok(Estimate::default());
        };
        let mut speeds: BTreeMap<usize, f64> = BTreeMap::new();
        let mut estimate = Estimate::default();
        for job in self.jobs {
            let arm = &self.ready.arms[job.arm];
            let config = &self.ready.requests[job.arm][job.seed].config;
            let training = &config.training;
            let speed = match speeds.get(&arm.n_layers) {
                Some(speed) => *speed,
                None => {
                    let bench = StepBench {
                        model: config.model_config(),
                        preset: None,
                        seq: training.seq,
                        batch: training.batch,
                        micro_batch: training.micro_batch,
                        stages: training.stages(),
                        optimizer: config.optimizer.name,
                        steps: MEASURED.0,
                        warmup: MEASURED.1,
                        ..StepBench::default()
                    };
                    let speed = bench.measure(spec)?.tokens_per_s;
                    estimate.measured.push((arm.n_layers, speed));
                    *speeds.entry(arm.n_layers).or_insert(speed)
                }
            };
            let evaluations = match training.eval_every.in_steps(training.tokens_per_step()) {
                0 => 0,
                every => training.steps / every,
            };
            let first = &self.ready.first;
            let scored =
                evaluations as f64 * first.interval.targets() as f64 + first.last.targets() as f64;
            let tokens = training.steps as f64 * training.tokens_per_step() as f64;
            estimate.seconds += (tokens + FORWARD * scored) / speed;
        }
        // Several runs on the CPU's cores share them.
        let in_host = |spec: &&DeviceSpec| spec.row().in_host_memory;
        let cpus = self.ready.devices.iter().filter(in_host).count();
        let own = self.ready.devices.len() - cpus + usize::from(cpus > 0);
        estimate.seconds /= own.max(1) as f64;
        Ok(estimate)
    }
}

/// How long the runs would take.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    seconds: f64,
    /// Tokens per second, by depth.
    measured: Vec<(usize, f64)>,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.measured.is_empty() {
            return write!(f, "time      none: every run has come to its end");
        }
        let speeds: Vec<String> = self
            .measured
            .iter()
            .map(|(layers, speed)| format!("{speed:.0} tokens/s with {layers} layers"))
            .collect();
        write!(
            f,
            "time      about {}, going by {} steps just timed: {}",
            duration(self.seconds),
            MEASURED.0,
            speeds.join(", ")
        )
    }
}

impl fmt::Display for ComparisonPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ready {
            arms,
            contrast,
            seeds,
            base,
            first,
            ..
        } = self.ready;
        let runs = arms.len() * seeds.len();
        writeln!(
            f,
            "compare   {}: {} arms, each beside {}",
            contrast.axis,
            arms.len(),
            contrast.baseline
        )?;
        for (arm, requests) in arms.iter().zip(&self.ready.requests) {
            let config = requests.first().unwrap_or(base).config.model_config();
            let parameters = Parameters::of(&config).map_err(|_| fmt::Error)?;
            writeln!(
                f,
                "          {:<28} {} initialisation{}, learning rate {:e}, {} layers, {parameters}",
                arm.name,
                arm.init,
                if arm.own_init { " (its own)" } else { "" },
                arm.lr,
                arm.n_layers,
            )?;
            for warning in config.decoder.warnings() {
                writeln!(f, "              warning: {warning}")?;
            }
        }
        let list: Vec<String> = seeds.iter().map(u64::to_string).collect();
        writeln!(
            f,
            "seeds     {} ({}): each decides data order and initialisation, alike for all arms",
            seeds.len(),
            list.join(", ")
        )?;
        if seeds.len() < LEAST {
            writeln!(
                f,
                "          fewer than {LEAST}: no difference can be told from what seeds alone do"
            )?;
        }
        let training = &base.config.training;
        let tokens = training.steps * training.tokens_per_step();
        writeln!(
            f,
            "runs      {runs}, {} of them done; each {} steps of {} x {} tokens: {} tokens, {}; {} tokens in all",
            runs - self.jobs.len(),
            thousands(training.steps),
            training.batch,
            training.seq,
            thousands(tokens),
            epochs(tokens, first.data.train.tokens),
            thousands(tokens.saturating_mul(runs as u64)),
        )?;
        writeln!(
            f,
            "data      {}, blake3 {}",
            first.data.description, first.data.hash
        )?;
        let schedule = base.config.schedule();
        writeln!(
            f,
            "schedule  {}, {} tokens of warm-up; {}",
            schedule.shape,
            thousands(schedule.warmup),
            base.config.optimizer
        )?;
        if let Some(warning) = costly_looks(training) {
            writeln!(f, "warning   {warning}")?;
        }
        let devices: Vec<String> = self
            .ready
            .devices
            .iter()
            .map(DeviceSpec::to_string)
            .collect();
        writeln!(f, "device    {}", devices.join(", "))?;
        write!(f, "{}", self.memory)?;
        if self.at_once > 1 {
            writeln!(f, "          {} such runs at once", self.at_once)?;
        }
        writeln!(f, "output    {}", self.ready.out.display())
    }
}
