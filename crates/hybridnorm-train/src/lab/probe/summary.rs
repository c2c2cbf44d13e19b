//! A row for each placement and depth.

use std::path::Path;

use hybridnorm_core::InitScheme;
use serde::{Deserialize, Serialize};

use super::answer;
use super::coupling::{LayerCoupling, Scaled};
use super::record::{Coupling, Line, Look, Setting, Trial};
use super::search::{Bracket, bracket};
use super::subject::Job;
use crate::error::Error;
use crate::json;

/// Its name, in the probe's directory.
pub const SUMMARY: &str = "probe.json";

/// Everything that was measured, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// One sentence.
    pub answer: String,
    /// Optimiser steps of a short run.
    pub steps: u64,
    /// Tokens in a step.
    pub tokens_per_step: u64,
    /// Seeds that were measured.
    pub seeds: u64,
    /// A row for each placement and depth, in the order in which they were asked for.
    pub rows: Vec<Row>,
}

/// What was measured of a placement at one depth; over several seeds a mean, where nothing else is said. What was not measured is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Where the norms stand.
    pub placement: String,
    /// Blocks.
    pub depth: usize,
    /// Gradient norm of the last quarter of the layers over that of the first, in step 1.
    pub first_gradient_ratio: Option<f64>,
    /// The same in the last step.
    pub last_gradient_ratio: Option<f64>,
    /// Gradient norm of the layer with the most over that of the layer with the least, in step 1.
    pub first_gradient_spread: Option<f64>,
    /// The same in the last step.
    pub last_gradient_spread: Option<f64>,
    /// RMS of the stream behind the last block over that behind the first, in the last step.
    pub rms_growth: Option<f64>,
    /// Token similarity behind the last block, in the last step.
    pub token_similarity: Option<f64>,
    /// Attention entropy of the layer with the least, in the last step, in nats.
    pub least_entropy: Option<f64>,
    /// The largest logit of attention of all layers and seeds, in the last step.
    pub largest_logit: Option<f64>,
    /// p of ‖∂S/∂W_Q‖ ∝ c^p where W_K, W_V and W_O are multiplied by c.
    pub coupling: Option<f64>,
    /// p of ‖∂S/∂W_Q‖ ∝ c^p where W_Q, W_K and W_V are multiplied by c.
    pub qkv_exponent: Option<f64>,
    /// The largest change of attention's output over all layers, factors and seeds, where W_Q, W_K and W_V are multiplied.
    pub qkv_change: Option<f64>,
    /// The largest learning rate that holds with every seed; `None` where it was not looked for, or none did.
    pub lr_holds: Option<f64>,
    /// The smallest above it that diverges with some seed.
    pub lr_diverges: Option<f64>,
    /// The rate with the least loss at the end of a short run.
    pub lr_best: Option<f64>,
    /// Loss at the end of a short run, from each initialisation.
    pub inits: Vec<InitLoss>,
    /// How far those that held lie apart, in nats per token.
    pub init_spread: Option<f64>,
}

/// What came of an initialisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InitLoss {
    /// The initialisation.
    pub init: InitScheme,
    /// Mean loss at the end, over the seeds that held; `None` where none did.
    pub loss: Option<f64>,
    /// Seeds with which it diverged.
    pub diverged: u64,
}

impl Summary {
    /// What `lines` say of what `jobs` asked for.
    pub fn new(setting: &Setting, jobs: &[Job], lines: &[Line]) -> Self {
        let mut subjects: Vec<(String, usize)> = Vec::new();
        let mut seeds = 0;
        for job in jobs {
            let subject = (job.subject.placement.clone(), job.subject.depth);
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
            seeds = seeds.max(job.subject.seed + 1);
        }
        // What an earlier call measured beside it is no answer to this one.
        let asked = |line: &&Line| {
            let Some((measure, subject)) = line.about() else {
                return false;
            };
            let mut jobs = jobs.iter();
            jobs.any(|job| job.measure == measure && job.subject == *subject)
        };
        let lines: Vec<&Line> = lines.iter().filter(asked).collect();
        let rows = subjects.into_iter().map(|(placement, depth)| {
            let own = lines.iter().copied().filter(|line| {
                let about = line.about();
                about.is_some_and(|(_, of)| of.placement == placement && of.depth == depth)
            });
            let lines: Vec<&Line> = own.collect();
            Row::new(placement.clone(), depth, setting, &lines)
        });
        let mut summary = Self {
            answer: String::new(),
            steps: setting.steps,
            tokens_per_step: setting.config.training.tokens_per_step(),
            seeds,
            rows: rows.collect(),
        };
        summary.answer = answer::sentence(&summary);
        summary
    }

    /// Writes `probe.json` into `dir`, whole or not at all.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        json::save(self, &dir.join(SUMMARY))
    }
}

/// The mean of the numbers that there are.
fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.into_iter().flatten().collect();
    let sum: f64 = values.iter().sum();
    (!values.is_empty()).then(|| sum / values.len() as f64)
}

/// The largest number that there is.
fn most(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    values.into_iter().flatten().reduce(f64::max)
}

/// Norm of a layer's matrices: attention and feed-forward together.
fn gradients(look: &Look) -> Vec<Option<f64>> {
    let parts = &look.gradient_norm;
    let pairs = parts.attention.iter().zip(&parts.feed_forward);
    pairs.map(|(a, b)| Some((*a)?.hypot((*b)?))).collect()
}

/// The mean over the last quarter of `layers` over that over the first.
fn last_over_first(layers: &[Option<f64>]) -> Option<f64> {
    let quarter = layers.len().div_ceil(4);
    let first = mean(layers.iter().take(quarter).copied())?;
    let last = mean(layers.iter().rev().take(quarter).copied())?;
    Some(last / first).filter(|ratio| ratio.is_finite())
}

/// The largest of `layers` over the smallest.
fn most_over_least(layers: &[Option<f64>]) -> Option<f64> {
    let known = || layers.iter().copied().flatten();
    let ratio = known().reduce(f64::max)? / known().reduce(f64::min)?;
    Some(ratio).filter(|ratio| ratio.is_finite())
}

impl Row {
    fn new(placement: String, depth: usize, setting: &Setting, lines: &[&Line]) -> Self {
        let looks = |step: u64| -> Vec<&Look> {
            let found = lines.iter().filter_map(|line| match line {
                Line::Layers(layers) => layers.looks.iter().find(|look| look.step == step),
                _ => None,
            });
            found.collect()
        };
        let (first, last) = (looks(1), looks(setting.steps));
        let of = |looks: &[&Look], figure: fn(&Look) -> Option<f64>| {
            mean(looks.iter().map(|look| figure(look)))
        };
        let couplings = lines.iter().filter_map(|line| match line {
            Line::Coupling(coupling) => Some(&**coupling),
            _ => None,
        });
        let couplings: Vec<&Coupling> = couplings.collect();
        let exponents = |scaled: Scaled| {
            let layers = couplings.iter().flat_map(|found| {
                let scales = &found.scales;
                let layers = found.layers.iter().filter(move |of| of.scaled == scaled);
                layers.map(move |of| LayerCoupling::exponent(scales, &of.query))
            });
            mean(layers)
        };
        let changes = couplings.iter().flat_map(|found| {
            let layers = found.layers.iter();
            let layers = layers.filter(|of| of.scaled == Scaled::QueryKeyValue);
            layers.flat_map(|of| of.output_change.iter().copied())
        });
        let trials = |init: bool| {
            let found = lines.iter().filter_map(move |line| match line {
                Line::LearningRate(trial) if !init => Some(trial),
                Line::Init(trial) if init => Some(trial),
                _ => None,
            });
            found.collect::<Vec<&Trial>>()
        };
        let rates = trials(false);
        let Bracket { holds, diverges } = over_seeds(setting.config.schedule.lr, &rates);
        let inits = init_losses(&trials(true));
        let held = || inits.iter().filter_map(|init| init.loss);
        let spread =
            held().fold(f64::NEG_INFINITY, f64::max) - held().fold(f64::INFINITY, f64::min);
        Self {
            placement,
            depth,
            first_gradient_ratio: of(&first, |look| last_over_first(&gradients(look))),
            last_gradient_ratio: of(&last, |look| last_over_first(&gradients(look))),
            first_gradient_spread: of(&first, |look| most_over_least(&gradients(look))),
            last_gradient_spread: of(&last, |look| most_over_least(&gradients(look))),
            rms_growth: of(&last, |look| {
                let rms = &look.forward.activation_rms;
                Some(rms.last().copied()?? / rms.first().copied()??)
            }),
            token_similarity: of(&last, |look| *look.forward.token_similarity.last()?),
            least_entropy: of(&last, |look| {
                let entropies = look.forward.attention_entropy.iter();
                entropies.copied().flatten().reduce(f64::min)
            }),
            largest_logit: most(
                last.iter()
                    .flat_map(|look| look.forward.largest_logit.clone()),
            ),
            coupling: exponents(Scaled::KeyValueOutput),
            qkv_exponent: exponents(Scaled::QueryKeyValue),
            qkv_change: most(changes),
            lr_holds: holds,
            lr_diverges: diverges,
            lr_best: best_rate(&rates),
            init_spread: (inits.len() > 1 && spread.is_finite()).then_some(spread),
            inits,
        }
    }
}

/// The bracket that holds for every seed.
fn over_seeds(start: f64, trials: &[&Trial]) -> Bracket {
    let mut found = Bracket {
        holds: None,
        diverges: None,
    };
    let mut seeds: Vec<u64> = trials.iter().map(|trial| trial.subject.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let brackets = seeds.iter().map(|seed| {
        let own = trials.iter().filter(|trial| trial.subject.seed == *seed);
        let own: Vec<(f64, bool)> = own
            .map(|trial| (trial.lr, trial.diverged.is_some()))
            .collect();
        bracket(start, &own)
    });
    for (index, Bracket { holds, diverges }) in brackets.enumerate() {
        found.holds = match index {
            0 => holds,
            _ => found.holds.zip(holds).map(|(a, b)| a.min(b)),
        };
        found.diverges = [found.diverges, diverges]
            .into_iter()
            .flatten()
            .reduce(f64::min);
    }
    found
}

/// The rate whose mean final loss is least, among those that held with every seed.
fn best_rate(trials: &[&Trial]) -> Option<f64> {
    let mut rates: Vec<f64> = trials.iter().map(|trial| trial.lr).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    let loss = |rate: f64| {
        let of = trials.iter().filter(|trial| trial.lr == rate);
        let of: Vec<&&Trial> = of.collect();
        let held = of.iter().all(|trial| trial.diverged.is_none());
        held.then(|| mean(of.iter().map(|trial| trial.final_loss)))?
    };
    let losses = rates
        .into_iter()
        .filter_map(|rate| Some((rate, loss(rate)?)));
    let best = losses.min_by(|a, b| a.1.total_cmp(&b.1));
    best.map(|(rate, _)| rate)
}

fn init_losses(trials: &[&Trial]) -> Vec<InitLoss> {
    let mut inits: Vec<InitScheme> = Vec::new();
    for trial in trials {
        if !inits.contains(&trial.subject.init) {
            inits.push(trial.subject.init);
        }
    }
    let of = |init: InitScheme| {
        let own = trials
            .iter()
            .filter(move |trial| trial.subject.init == init);
        let (held, diverged): (Vec<&&Trial>, Vec<_>) =
            own.partition(|trial| trial.diverged.is_none());
        InitLoss {
            init,
            loss: mean(held.iter().map(|trial| trial.final_loss)),
            diverged: diverged.len() as u64,
        }
    };
    inits.into_iter().map(of).collect()
}
