//! `compare`: placements over seeds, and what can be concluded.

mod flags;
mod plan;
mod runs;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::train::Interrupter;

pub use flags::CompareFlags;

use super::contents::Contents;
use super::memory::MemoryPlan;
use super::ready::ReadyRun;
use super::request::Request;
use crate::device::DeviceSpec;
use crate::engine::{RunDir, changed_mathematics, interrupt_on_signals, stored_config};
use crate::error::Error;
use crate::lab::compare::{
    Arm, ArmResults, COMPARISON, Comparison, Contrast, Inits, Job, Outcome, RUNS, RunResult,
    Setting, run_all,
};
use crate::report::REPORT;
use crate::sizes::Parameters;
use plan::ComparisonPlan;
use runs::Runs;

/// A comparison that is ready to start. Nothing has been written.
struct Ready {
    out: PathBuf,
    arms: Vec<Arm>,
    inits: Inits,
    contrast: Contrast,
    seeds: Vec<u64>,
    devices: Vec<DeviceSpec>,
    /// The runs of each arm, in the order of the seeds.
    requests: Vec<Vec<Request>>,
    /// What the arms change.
    base: Request,
    /// The first run with its data.
    first: ReadyRun,
    /// The process ends, with checkpoints, when this much time has passed.
    max_time: Option<std::time::Duration>,
}

pub(super) fn run(flags: &CompareFlags, out: &mut impl Write) -> Result<(), Error> {
    let started = std::time::Instant::now();
    let ready = flags.resolve()?;
    let outcomes = ready.outcomes()?;
    let jobs = ready.jobs(&outcomes);
    let plan = ComparisonPlan::new(&ready, &jobs)?;
    write!(out, "{plan}").map_err(Error::Output)?;
    plan.check()?;
    let time = plan.measure()?;
    writeln!(out, "{time}\n").map_err(Error::Output)?;
    out.flush().map_err(Error::Output)?;
    if flags.is_plan() {
        return Ok(());
    }

    let interrupter = Interrupter::new();
    interrupt_on_signals(&interrupter)?;
    let ends = ready.max_time.and_then(|time| started.checked_add(time));
    let left = jobs.len();
    let runs = Runs::new(&ready, outcomes, left, interrupter.clone(), ends);
    runs.save()?;
    run_all(&jobs, &ready.devices, |job, device| runs.run(job, device))?;
    let comparison = runs.save()?;
    write!(out, "{comparison}").map_err(Error::Output)?;
    let contents = Contents {
        dir: &ready.out,
        files: &[
            (REPORT, "the same in pictures, on one page"),
            (COMPARISON, "every figure"),
            ("runs/", "the runs: each is a run directory like any other"),
        ],
    };
    write!(out, "\n{contents}").map_err(Error::Output)?;
    let missing: usize = comparison.arms.iter().map(ArmResults::unfinished).sum();
    match missing {
        0 => Ok(()),
        missing => Err(Error::ComparisonStopped {
            done: ready.arms.len() * ready.seeds.len() - missing,
            runs: ready.arms.len() * ready.seeds.len(),
            dir: ready.out.clone(),
            out_of_time: !interrupter.should_stop(),
        }),
    }
}

impl Ready {
    /// How each run has ended that has: by arm, then by seed.
    ///
    /// # Errors
    /// When a run directory holds something that these runs would not compute.
    fn outcomes(&self) -> Result<Vec<Vec<Option<Outcome>>>, Error> {
        refuse_if_taken(&self.out)?;
        let mut new = self.requests.iter().flatten().filter(|new| !new.resume);
        if let Some(request) = new.next() {
            RunDir::probe(&request.out)?;
        }
        let data = self.first.batches.identity();
        let outcome = |request: &Request| -> Result<Option<Outcome>, Error> {
            if !request.resume {
                return Ok(None);
            }
            let refuse = |what: &str, now: &str, stored: &str| {
                Err(Error::Usage(format!(
                    "{}: {what} is {now} now, but the run there was started with {stored}: leave it as it was, or give another --out",
                    request.out.display()
                )))
            };
            let stored = stored_config(&request.out)?;
            if let Some(changed) = changed_mathematics(&stored, &request.config)?.first() {
                return refuse(&changed.field, &changed.right, &changed.left);
            }
            let found = Outcome::read(&request.out)?;
            match &found {
                Some(Outcome { data: stored, .. }) if *stored != data => {
                    let name = |data: &Option<String>| data.clone().unwrap_or_default();
                    refuse("the data", &name(&data), &name(stored))
                }
                _ => Ok(found),
            }
        };
        let of_arm = |requests: &Vec<Request>| requests.iter().map(outcome).collect();
        self.requests.iter().map(of_arm).collect()
    }

    /// What is left to run: all arms of a seed, then those of the next, so that pairs are complete early.
    fn jobs(&self, outcomes: &[Vec<Option<Outcome>>]) -> Vec<Job> {
        let seeds = 0..self.seeds.len();
        let all = seeds.flat_map(|seed| (0..self.arms.len()).map(move |arm| Job { arm, seed }));
        let is_left = |job: &Job| {
            let outcome = outcomes.get(job.arm).and_then(|of| of.get(job.seed));
            !matches!(outcome, Some(Some(_)))
        };
        all.filter(is_left).collect()
    }

    /// The comparison as far as it has come.
    fn comparison(&self, outcomes: &[Vec<Option<Outcome>>]) -> Result<Comparison, Error> {
        let training = &self.base.config.training;
        let mut devices: BTreeSet<String> = self.devices.iter().map(|d| d.to_string()).collect();
        let known = outcomes.iter().flatten().flatten();
        devices.extend(known.map(|outcome| outcome.device.clone()));
        let config = serde_json::to_value(&self.base.config);
        let setting = Setting {
            preset: self.base.preset.map(str::to_string),
            data: self.first.data.description.clone(),
            data_blake3: self.first.data.hash.clone(),
            steps: training.steps,
            tokens: training.steps * training.tokens_per_step(),
            devices: devices.into_iter().collect(),
            inits: self.inits.clone(),
            config: config.map_err(|error| Error::Usage(error.to_string()))?,
        };
        let arms = self.arms.iter().zip(&self.requests).zip(outcomes);
        let arms = arms.map(|((arm, requests), outcomes)| {
            let runs = self.seeds.iter().zip(requests).zip(outcomes);
            let runs = runs.map(|((seed, request), outcome)| RunResult {
                seed: *seed,
                dir: relative(&request.out, &self.out),
                outcome: outcome.clone(),
            });
            let config = requests.first().unwrap_or(&self.base).config.model_config();
            let parameters = Parameters::of(&config)?.total;
            Ok(ArmResults::new(arm.clone(), parameters, runs.collect()))
        });
        let arms = arms.collect::<Result<_, Error>>()?;
        let (contrast, seeds) = (self.contrast.clone(), self.seeds.clone());
        Ok(Comparison::new(setting, contrast, seeds, arms))
    }

    /// The memory of its largest run, and of as many at once as there are devices.
    fn memory(&self) -> Result<Vec<MemoryPlan>, Error> {
        let largest = self.requests.iter().filter_map(|requests| requests.first());
        let plans = largest.map(|request| MemoryPlan::of_request(request, &self.first));
        plans.collect()
    }
}

/// Refuses a directory that holds anything, but no comparison.
fn refuse_if_taken(out: &Path) -> Result<(), Error> {
    if !out.exists() || out.join(COMPARISON).exists() || out.join(RUNS).is_dir() {
        return Ok(());
    }
    let mut entries = std::fs::read_dir(out).map_err(Error::io("read", out))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Error::Usage(format!(
            "{} holds something else than a comparison: give another --out",
            out.display()
        ))),
    }
}

fn relative(path: &Path, base: &Path) -> String {
    let inside = path.strip_prefix(base).unwrap_or(path);
    inside.display().to_string()
}
