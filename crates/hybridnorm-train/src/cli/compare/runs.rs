//! The runs of a comparison, one after the other on each device.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::train::Interrupter;

use super::Ready;
use crate::bench::Spread;
use crate::cli::contents::draw;
use crate::cli::ready::ReadyRun;
use crate::cli::results::duration;
use crate::cli::train::evaluator;
use crate::device::DeviceSpec;
use crate::engine::{
    Console, METRICS, Record, TrainError, TrainRequest, TrainSummary, read_log, train,
};
use crate::error::Error;
use crate::lab::compare::{
    COMPARISON, Comparison, Job, Outcome, State, divergence, ended_by, stuck, tail,
};
use crate::mfu::Utilization;

/// Everything that several threads share.
pub(super) struct Runs<'a> {
    ready: &'a Ready,
    interrupter: Interrupter,
    ends: Option<Instant>,
    started: Instant,
    /// Runs to be done in this call.
    left: usize,
    state: Mutex<Progress>,
    /// The data of each seed, while a run uses it.
    data: Mutex<HashMap<usize, std::sync::Weak<ReadyRun>>>,
}

struct Progress {
    outcomes: Vec<Vec<Option<Outcome>>>,
    done: usize,
}

impl<'a> Runs<'a> {
    pub(super) fn new(
        ready: &'a Ready,
        outcomes: Vec<Vec<Option<Outcome>>>,
        left: usize,
        interrupter: Interrupter,
        ends: Option<Instant>,
    ) -> Self {
        Self {
            ready,
            interrupter,
            ends,
            started: Instant::now(),
            left,
            state: Mutex::new(Progress { outcomes, done: 0 }),
            data: Mutex::new(HashMap::new()),
        }
    }

    /// Writes `compare.json` and `report.html` as far as the runs have come.
    pub(super) fn save(&self) -> Result<Comparison, Error> {
        let state = lock(&self.state);
        let comparison = self.ready.comparison(&state.outcomes)?;
        let out = &self.ready.out;
        std::fs::create_dir_all(out).map_err(Error::io("create", out))?;
        comparison.save(&out.join(COMPARISON))?;
        draw(out);
        Ok(comparison)
    }

    /// A run from its beginning, or from its newest checkpoint. False where the comparison is to end here.
    pub(super) fn run(&self, job: Job, spec: &DeviceSpec) -> Result<bool, Error> {
        let (arm, seed) = (&self.ready.arms[job.arm], self.ready.seeds[job.seed]);
        let name = format!("{} seed {seed}", arm.name);
        let Some(max_time) = self.time_left() else {
            return Ok(false);
        };
        if self.interrupter.should_stop() {
            return Ok(false);
        }
        let request = &self.ready.requests[job.arm][job.seed];
        let data = self.data(job.seed)?;
        let device = spec.open()?;
        // What a device measures of itself takes time, and is the same for all of them.
        let utilization: Option<Utilization> = None;
        let ended = train(TrainRequest {
            config: request.config.clone(),
            run_dir: request.out.clone(),
            evaluate: Some(evaluator(&data, &request.config, &device)),
            device,
            replicas: Vec::new(),
            resume: request.resume,
            allow: Vec::new(),
            max_time,
            batches: data.batches.clone(),
            interrupter: self.interrupter.clone(),
            console: Console::plain(io::LineWriter::new(Prefixed { name: name.clone() })),
            tensorboard: request.tensorboard,
            utilization,
        });
        let Some(outcome) = outcome(ended, &data, request, spec)? else {
            return Ok(false);
        };
        outcome.save(&request.out)?;
        // As every later call reads it: JSON gives a number back to its last digit but one.
        let outcome = Outcome::read(&request.out)?.unwrap_or(outcome);
        self.tell(&name, &outcome, job);
        draw(&request.out);
        self.save()?;
        Ok(true)
    }

    /// Time that a run has; `None` where there is none left.
    fn time_left(&self) -> Option<Option<Duration>> {
        let Some(ends) = self.ends else {
            return Some(None);
        };
        let left = ends.checked_duration_since(Instant::now())?;
        Some(Some(left))
    }

    /// The data in the order of a seed. All arms have the same.
    fn data(&self, seed: usize) -> Result<Arc<ReadyRun>, Error> {
        let mut known = lock(&self.data);
        if let Some(found) = known.get(&seed).and_then(std::sync::Weak::upgrade) {
            return Ok(found);
        }
        let request = self.ready.requests[0][seed].clone();
        let read = Arc::new(ReadyRun::of(request)?);
        known.insert(seed, Arc::downgrade(&read));
        Ok(read)
    }

    fn tell(&self, name: &str, outcome: &Outcome, job: Job) {
        let mut state = lock(&self.state);
        state.outcomes[job.arm][job.seed] = Some(outcome.clone());
        state.done += 1;
        let each = self.started.elapsed().as_secs_f64() / state.done as f64;
        let rest = self.left.saturating_sub(state.done);
        let left = match rest {
            0 => String::new(),
            rest => format!("; about {} left", duration(each * rest as f64)),
        };
        let reason = outcome.reason.as_ref();
        let result = match (outcome.state, outcome.validation_loss) {
            (State::Diverged, _) => format!("diverged: {}", reason.map_or("", String::as_str)),
            (State::Finished, Some(loss)) => format!("validation loss {loss:.4}"),
            (State::Finished, None) => "done".to_string(),
        };
        let line = format!(
            "run {} of {}: {name}: {result}{left}",
            state.done, self.left
        );
        // A closed pipe does not end a run.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// How a run ended; `None` where it was stopped before.
fn outcome(
    ended: Result<TrainSummary, TrainError>,
    data: &ReadyRun,
    request: &crate::cli::request::Request,
    spec: &DeviceSpec,
) -> Result<Option<Outcome>, Error> {
    let records = read_log(&request.out.join(METRICS))?;
    let steps: Vec<_> = records
        .iter()
        .filter_map(|record| match record {
            Record::Step(step) => Some(step),
            _ => None,
        })
        .collect();
    let losses: Vec<f64> = steps.iter().map(|step| step.loss).collect();
    let speeds: Vec<f64> = steps.iter().map(|step| step.tokens_per_s).collect();
    let last_evaluation = records.iter().rev().find_map(|record| match record {
        Record::Evaluation { evaluation, .. } => Some(*evaluation),
        _ => None,
    });
    let training = &request.config.training;
    let (state, reason, evaluation) = match ended {
        Ok(summary) if summary.interrupted => return Ok(None),
        Ok(summary) => {
            let evaluation = summary.evaluation.or(last_evaluation);
            let unigram = data.yardsticks.unigram;
            let stuck = || stuck(evaluation?.bits_per_byte, unigram);
            match divergence(&losses) {
                Some(reason) => (State::Diverged, Some(reason), evaluation),
                None => (State::Finished, stuck(), evaluation),
            }
        }
        // Of a run that broke off, no figure is that of its end.
        Err(error) => match ended_by(&error) {
            Some(reason) => (State::Diverged, Some(reason), None),
            None => return Err(error.into()),
        },
    };
    let done = steps.last().map_or(0, |step| step.step);
    Ok(Some(Outcome {
        state,
        reason,
        steps: done,
        tokens: done * training.tokens_per_step(),
        validation_loss: evaluation.map(|evaluation| evaluation.nats_per_token),
        bits_per_byte: evaluation.map(|evaluation| evaluation.bits_per_byte),
        training_loss: tail(&losses),
        tokens_per_s: Spread::of(&speeds).map(|spread| spread.median),
        elapsed_s: steps.last().map(|step| step.elapsed_s),
        data: data.batches.identity(),
        device: spec.to_string(),
        program: env!("CARGO_PKG_VERSION").to_string(),
    }))
}

/// Standard error, each line with the name of the run in front.
struct Prefixed {
    name: String,
}

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut err = io::stderr().lock();
        for line in text.lines() {
            writeln!(err, "[{}] {line}", self.name)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
