//! What a probe would measure, in how much memory, and how long that would take.

use core::fmt;
use std::path::Path;

use super::run_data::DataFacts;
use crate::device::{DeviceSpec, memory_for};
use crate::error::Error;
use crate::lab::probe::{Job, Lab, Line, Measure, SCALES, Scaled, Setting};
use crate::memory::{Workload, in_words};
use crate::sizes::{Parameters, counted, thousands};

/// Short runs that a search takes as a rule: out by one or two factors of four, and two halvings.
const SEARCH: u64 = 5;
/// What scaling weights costs, in steps: a forward and backward pass of the model for each factor, and one of a layer for each factor and
/// choice of matrices. On one sequence; whole steps are counted, which is too much.
const COUPLING: u64 = SCALES.len() as u64 + 2;

/// A probe as it is shown before it starts.
pub(super) struct ProbePlan<'a> {
    pub setting: &'a Setting,
    pub jobs: &'a [Job],
    /// What was measured before.
    pub known: &'a [Line],
    pub data: &'a DataFacts,
    pub device: &'a DeviceSpec,
    pub dir: &'a Path,
}

impl ProbePlan<'_> {
    /// Refuses models of which the deepest does not fit beside what the process holds.
    pub(super) fn check_memory(&self, held: u64) -> Result<(), Error> {
        let Some(available) = memory_for(self.device, held) else {
            return Ok(());
        };
        match self
            .workload(held)?
            .too_large(available, &self.device.to_string())?
        {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// The largest of the models.
    fn workload(&self, held: u64) -> Result<Workload, Error> {
        let deepest = self.jobs.iter().max_by_key(|job| job.subject.depth);
        let deepest = deepest.ok_or_else(|| Error::Usage("there is nothing to measure".into()))?;
        let config = deepest.subject.config(&self.setting.config)?;
        let host = self.device.row().in_host_memory.then_some(held);
        Ok(Workload::of(&config, 1, 1, host))
    }

    /// Seconds that what is left would take: a step of the shallowest model is timed, and deeper ones take as much longer as they are
    /// deeper.
    pub(super) fn estimate(&self, lab: &Lab) -> Result<f64, Error> {
        let left = || self.jobs.iter().filter(|job| self.is_left(job));
        let Some(shallowest) = left().min_by_key(|job| job.subject.depth) else {
            return Ok(0.0);
        };
        let each = lab.step_seconds(&shallowest.subject)?;
        let steps = |job: &Job| match job.measure {
            Measure::Layers | Measure::Init => self.setting.steps,
            Measure::LearningRate => SEARCH * self.setting.steps,
            Measure::Coupling => COUPLING,
        };
        let depth = |job: &Job| job.subject.depth as f64 / shallowest.subject.depth as f64;
        Ok(left()
            .map(|job| steps(job) as f64 * depth(job) * each)
            .sum())
    }

    fn is_left(&self, job: &Job) -> bool {
        match job.measure {
            Measure::LearningRate => job.search_goes_on(self.setting, self.known),
            _ => !job.is_done(self.known),
        }
    }
}

impl fmt::Display for ProbePlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.setting.config;
        let (model, training) = (&config.model, &config.training);
        let mut placements: Vec<&str> = Vec::new();
        let mut depths: Vec<usize> = Vec::new();
        for Job { subject, .. } in self.jobs {
            if !placements.contains(&subject.placement.as_str()) {
                placements.push(&subject.placement);
            }
            if !depths.contains(&subject.depth) {
                depths.push(subject.depth);
            }
        }
        writeln!(f, "probe     {}", placements.join(", "))?;
        let sizes = depths.iter().map(|depth| {
            let mut config = config.clone();
            config.model.n_layers = *depth;
            let parameters = Parameters::of(&config.model_config());
            parameters.map(|parameters| format!("{depth} layers ({parameters})"))
        });
        let sizes: Result<Vec<String>, _> = sizes.collect();
        writeln!(f, "models    {}", sizes.map_err(|_| fmt::Error)?.join(", "))?;
        writeln!(
            f,
            "          width {}, feed-forward {}, {} heads of {} on {} key/value heads, vocabulary {}",
            model.d_model,
            model.d_ff,
            model.n_heads,
            model.head_dim(),
            model.n_kv_heads,
            thousands(model.vocab_size as u64),
        )?;
        writeln!(f, "data      {}", self.data.description)?;
        writeln!(
            f,
            "runs      {} steps of {} x {} tokens, learning rate {:e} after {} of warm-up",
            self.setting.steps,
            training.batch,
            training.seq,
            config.schedule.lr,
            counted(self.setting.warmup_steps, "step"),
        )?;
        for (name, measure) in Measure::ALL {
            let of = self.jobs.iter().filter(|job| job.measure == measure);
            let (count, left) = of.fold((0, 0), |(count, left), job| {
                (count + 1, left + usize::from(self.is_left(job)))
            });
            if count == 0 {
                continue;
            }
            let what = match measure {
                Measure::Layers => "gradients, activations and attention of every layer, in the first and last step".to_string(),
                Measure::Coupling => format!(
                    "gradients of weights that are multiplied by {} to {}, {} choices of them",
                    SCALES[0],
                    SCALES[SCALES.len() - 1],
                    Scaled::ALL.len()
                ),
                Measure::LearningRate => "the largest learning rate that does not diverge, to half an octave".to_string(),
                Measure::Init => "the loss of a short run from an initialisation".to_string(),
            };
            let done = match count - left {
                0 => String::new(),
                done => format!(", {done} of them done"),
            };
            writeln!(f, "measure   {name}: {what}; {count} models{done}")?;
        }
        let memory = self.workload(0).and_then(|work| Ok(work.memory()?.total()));
        let memory = memory.map_err(|_| fmt::Error)?;
        writeln!(f, "memory    about {}", in_words(memory))?;
        writeln!(f, "device    {}", self.setting.device)?;
        writeln!(f, "output    {}", self.dir.display())
    }
}
