//! The whole of a comparison: `compare.json`.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::answer;
use super::arm::{Arm, Inits};
use super::contrast::{Contrast, Row, View};
use super::outcome::{Outcome, State};
use super::stats::{self, Paired, Verdict};
use crate::error::Error;
use crate::json;

/// What all runs of a comparison share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// The preset, where the model is one.
    pub preset: Option<String>,
    /// What they learn from.
    pub data: String,
    /// Its hash.
    pub data_blake3: String,
    /// Optimiser steps of each run.
    pub steps: u64,
    /// Tokens that each run trains on.
    pub tokens: u64,
    /// Where runs were computed, in this or earlier calls.
    pub devices: Vec<String>,
    /// Initialisations of the arms.
    pub inits: Inits,
    /// The configuration that the arms change, as in `config.toml`.
    pub config: serde_json::Value,
}

/// A comparison with all its figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// One sentence.
    pub answer: String,
    /// What all runs share.
    pub setting: Setting,
    /// What is judged.
    pub contrast: Contrast,
    /// The seeds, each of which decides data order and initialisation.
    pub seeds: Vec<u64>,
    /// The arms and their runs.
    pub arms: Vec<ArmResults>,
    /// The verdicts.
    pub views: Vec<View>,
    /// How they were come by.
    pub method: Method,
}

/// How verdicts are come by: see [`stats`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// What is compared.
    pub quantity: String,
    /// Of the intervals.
    pub confidence: f64,
    /// Of the bootstrap.
    pub resamples: usize,
    /// Its seed.
    pub bootstrap_seed: u64,
    /// Fewest pairs for a verdict.
    pub least_pairs: usize,
    /// When a difference counts.
    pub rule: String,
}

/// An arm and its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmResults {
    /// The arm.
    #[serde(flatten)]
    pub arm: Arm,
    /// Its model's parameters.
    pub parameters: usize,
    /// Mean validation loss of the runs that came to their end.
    pub mean: Option<f64>,
    /// Its standard deviation over seeds, which includes what data order and initialisation do to every arm.
    pub deviation: Option<f64>,
    /// Mean bits per byte.
    pub bits_per_byte: Option<f64>,
    /// One for each seed.
    pub runs: Vec<RunResult>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Its seed.
    pub seed: u64,
    /// Its directory, in the comparison's.
    pub dir: String,
    /// How it ended; absent while it has not.
    pub outcome: Option<Outcome>,
}

impl RunResult {
    /// Its validation loss, if it came to its end.
    pub fn loss(&self) -> Option<f64> {
        let outcome = self.outcome.as_ref()?;
        outcome
            .validation_loss
            .filter(|_| outcome.state == State::Finished)
    }

    fn has_diverged(&self) -> bool {
        let outcome = self.outcome.as_ref();
        outcome.is_some_and(|outcome| outcome.state == State::Diverged)
    }
}

impl ArmResults {
    /// An arm, the parameters of its model, and its runs.
    pub fn new(arm: Arm, parameters: usize, runs: Vec<RunResult>) -> Self {
        let losses: Vec<f64> = runs.iter().filter_map(RunResult::loss).collect();
        let of = Paired::of(&losses);
        let finished = runs.iter().filter(|run| run.loss().is_some());
        let bits = finished.filter_map(|run| run.outcome.as_ref()?.bits_per_byte);
        let bits = Paired::of(&bits.collect::<Vec<f64>>());
        Self {
            arm,
            parameters,
            mean: of.as_ref().map(|of| of.mean),
            deviation: of.and_then(|of| of.deviation),
            bits_per_byte: bits.map(|bits| bits.mean),
            runs,
        }
    }

    /// Runs that diverged.
    pub fn diverged(&self) -> usize {
        self.runs.iter().filter(|run| run.has_diverged()).count()
    }

    /// What is to be said of runs that came to their end and learnt nothing.
    fn stuck(&self) -> Option<String> {
        let finished = self.runs.iter().filter(|run| run.loss().is_some());
        let mut reasons = finished.filter_map(|run| run.outcome.as_ref()?.reason.as_ref());
        let first = reasons.next()?;
        let (count, of) = (1 + reasons.count(), self.runs.len());
        Some(format!(
            "{count} of {of} runs learnt no more than frequencies: {first}"
        ))
    }

    /// Runs that have not come to any end.
    pub fn unfinished(&self) -> usize {
        self.runs.iter().filter(|run| run.outcome.is_none()).count()
    }
}

impl Comparison {
    /// Judges the arms.
    pub fn new(
        setting: Setting,
        contrast: Contrast,
        seeds: Vec<u64>,
        arms: Vec<ArmResults>,
    ) -> Self {
        let views = views(&contrast, &setting.inits, &arms);
        let mut comparison = Self {
            answer: String::new(),
            setting,
            contrast,
            seeds,
            arms,
            views,
            method: Method {
                quantity:
                    "validation loss at the end, nats per token, arm less baseline of the same seed"
                        .to_string(),
                confidence: stats::CONFIDENCE,
                resamples: stats::RESAMPLES,
                bootstrap_seed: stats::BOOTSTRAP_SEED,
                least_pairs: stats::LEAST,
                rule:
                    "shown where the percentile bootstrap's and Student's interval both leave out 0"
                        .to_string(),
            },
        };
        comparison.answer = answer::sentence(&comparison);
        comparison
    }

    /// The one that stands at `path`.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
        serde_json::from_str(&text).map_err(|error| Error::ConfigFile {
            path: path.to_path_buf(),
            line: Some(error.line()),
            reason: error.to_string(),
        })
    }

    /// Writes it to `path`, whole or not at all.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        json::save(self, path)
    }

    /// An arm by name.
    pub fn arm(&self, name: &str) -> Option<&ArmResults> {
        self.arms.iter().find(|known| known.arm.name == name)
    }
}

fn views(contrast: &Contrast, inits: &Inits, arms: &[ArmResults]) -> Vec<View> {
    let plain: Vec<Arm> = arms.iter().map(|results| results.arm.clone()).collect();
    let tables = contrast.tables(&plain, inits);
    let view = |(title, members): (String, Vec<usize>)| {
        let among = || members.iter().filter_map(|index| arms.get(*index));
        let row = |results: &ArmResults| {
            let own = among().map(|other| &other.arm);
            let baseline = contrast.baseline_of(&results.arm, own, inits)?;
            let baseline = among().find(|other| other.arm == *baseline)?;
            Some(judge(results, baseline))
        };
        View {
            title,
            rows: among().filter_map(row).collect(),
        }
    };
    tables.into_iter().map(view).collect()
}

/// An arm held against its baseline.
fn judge(results: &ArmResults, baseline: &ArmResults) -> Row {
    let pairs = results.runs.iter().filter_map(|run| {
        let other = baseline.runs.iter().find(|other| other.seed == run.seed)?;
        Some((run.seed, run.loss()? - other.loss()?))
    });
    let is_baseline = results.arm == baseline.arm;
    let differences: Vec<(u64, f64)> = match is_baseline {
        true => Vec::new(),
        false => pairs.collect(),
    };
    let values: Vec<f64> = differences
        .iter()
        .map(|(_, difference)| *difference)
        .collect();
    let paired = Paired::of(&values);
    let (of, diverged) = (results.runs.len(), results.diverged());
    let first = |arm: &ArmResults| {
        let mut reasons = arm.runs.iter().filter(|run| run.has_diverged());
        let reason = reasons.find_map(|run| run.outcome.as_ref()?.reason.clone());
        reason.unwrap_or_default()
    };
    let (verdict, note) = if diverged > 0 {
        let note = format!("{diverged} of {of} runs diverged: {}", first(results));
        (Verdict::Diverged, Some(note))
    } else if is_baseline {
        (Verdict::Baseline, None)
    } else if results.unfinished() + baseline.unfinished() > 0 {
        let missing = results.unfinished() + baseline.unfinished();
        let note = format!("{missing} runs of it and its baseline have not come to their end");
        (Verdict::Unfinished, Some(note))
    } else if baseline.diverged() > 0 && values.len() < stats::LEAST {
        let note = format!(
            "{} of {of} runs of the baseline diverged: {}",
            baseline.diverged(),
            first(baseline)
        );
        (Verdict::NoBaseline, Some(note))
    } else {
        let verdict = paired
            .as_ref()
            .map_or(Verdict::TooFewSeeds, Paired::verdict);
        let note = (verdict == Verdict::TooFewSeeds).then(|| match values.len() {
            1 => "one pair: how far seeds alone move the difference is not known".to_string(),
            n => format!("{n} pairs: too few to tell a difference from what seeds alone do"),
        });
        (verdict, note)
    };
    let note = note.or_else(|| results.stuck());
    Row {
        arm: results.arm.name.clone(),
        baseline: baseline.arm.name.clone(),
        differences,
        paired,
        verdict,
        note,
    }
}
