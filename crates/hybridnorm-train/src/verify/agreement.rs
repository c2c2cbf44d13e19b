//! One device beside the yardstick: `flex`, which is itself held against the authors' numbers.
//!
//! The yardstick computes the same work in f64, in f32, and in f32 from parameters that are a rounding away. A device may be off from
//! the f64 values by [`FACTOR`] times the most that those f32 runs are off, value by value: what rounding alone does to this value,
//! where a single run may be close by luck. Nothing here is a typed-in tolerance. Values are compared in the order of their
//! computation, so that the first one that is off names the operation that went wrong, before its error spreads.
//!
//! Where a router's choice is a tie within rounding (see [`routing`](super::routing)), a right device may choose otherwise, and what
//! follows is another computation: the comparison of that phase ends there, and the report says so. The same holds for the
//! yardstick's own f32 runs: one that chooses otherwise than f64 does says nothing about rounding from there on.
//!
//! [`FACTOR`]: super::FACTOR

use hybridnorm_core::trace::Op;
use hybridnorm_interop::Array;
use serde::Serialize;

use super::check::{Check, FACTOR};
use super::record::{Record, Step};
use super::routing::{Flip, Routed};
use super::yardstick::{Yardstick, own, own_along};

/// How a device compares with the yardstick.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// Number of comparisons.
    pub checks: usize,
    /// How many of them failed.
    pub failed: usize,
    /// The comparison that came closest to its tolerance, or passed it furthest.
    pub worst: Option<Check>,
    /// Where the device first went another way.
    pub first: Option<Divergence>,
    /// Where a comparison ended because a choice of experts was a tie.
    pub ties: Vec<Tie>,
}

/// A tie between experts: either choice is right, and what follows cannot be compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tie {
    /// In which part of the work.
    pub phase: Phase,
    /// The step, from 1, in a trajectory.
    pub step: Option<usize>,
    /// The token.
    pub flip: Flip,
}

impl core::fmt::Display for Tie {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if let Some(step) = self.step {
            write!(f, "step {step}, ")?;
        }
        self.flip.fmt(f)
    }
}

/// The first value that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Divergence {
    /// In which part of the work.
    pub phase: Phase,
    /// The layer and operation, the parameter, or the step: `layer 1, attention, key norm`.
    pub place: String,
    /// The comparison.
    pub check: Check,
}

/// A part of the work. Each needs the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The forward pass.
    Forward,
    /// The gradients, from the last parameter to the first.
    Backward,
    /// The optimiser's steps.
    Trajectory,
}

impl core::fmt::Display for Divergence {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let phase = match self.phase {
            Phase::Forward => "forward",
            Phase::Backward => "backward",
            Phase::Trajectory => "training",
        };
        let Self { place, check, .. } = self;
        write!(
            f,
            "{phase}: {place} (error {:.1e} of {:.1e} allowed",
            check.error, check.tolerance
        )?;
        match check.at.is_empty() {
            true => f.write_str(")"),
            false => write!(f, " at {})", check.at),
        }
    }
}

/// Compares what a device computed with the yardstick.
pub fn compare(found: &Record, yardstick: &Yardstick) -> Agreement {
    let mut comparison = Comparison::default();
    if comparison.forward(found, yardstick) {
        comparison.backward(found, yardstick);
    }
    comparison.trajectory(found, yardstick);
    comparison.summary()
}

#[derive(Default)]
struct Comparison {
    checks: Vec<(Phase, String, Check)>,
    ties: Vec<Tie>,
}

impl Comparison {
    fn push(
        &mut self,
        phase: Phase,
        place: String,
        found: Option<&Array>,
        expected: &Array,
        own: f64,
    ) -> f64 {
        let check = match found {
            Some(value) => Check::close(&place, &value.values, expected, own),
            None => Check::exact(&place, false, "not computed"),
        };
        let tolerance = check.tolerance;
        self.checks.push((phase, place, check));
        tolerance
    }

    /// Whether what follows a router can still be compared: the device chose as the f64 run, or wrongly, which is a failure here.
    /// `tolerance` is that of the logits; two of them may be off in opposite directions.
    fn chooses(
        &mut self,
        (phase, step): (Phase, Option<usize>),
        expected: &Routed,
        found: Option<&Routed>,
        tolerance: f64,
    ) -> bool {
        let Some(flip) = found.and_then(|found| expected.flip(&found.chosen)) else {
            return true;
        };
        if flip.gap <= 2.0 * tolerance {
            self.ties.push(Tie { phase, step, flip });
            return false;
        }
        let step = step.map_or(String::new(), |step| format!("step {step}, "));
        let place = format!(
            "{step}layer {}, feed-forward, chosen experts",
            expected.layer
        );
        let check = Check::new(&place, flip.gap, 2.0 * tolerance, flip.to_string());
        self.checks.push((phase, place, check));
        true
    }

    /// The forward pass, value by value. Whether all of it could be compared.
    fn forward(&mut self, found: &Record, yardstick: &Yardstick) -> bool {
        let double = &yardstick.double;
        let runs = yardstick.forward();
        let Some(first) = yardstick.single.first() else {
            return false;
        };
        if runs.is_empty() {
            let mut pairs = double.routing.iter().zip(&first.routing);
            let flip = pairs.find_map(|(exact, single)| exact.flip(&single.chosen));
            let tie = |flip| Tie {
                phase: Phase::Forward,
                step: None,
                flip,
            };
            self.ties.extend(flip.map(tie));
            return false;
        }
        let mut routers = double.routing.iter().zip(0..);
        for (index, (place, expected)) in double.forward.iter().enumerate() {
            let runs = runs.iter().copied();
            let own = own(runs, expected, |run| forward_value(run, index));
            let same = found.forward.get(index).filter(|(at, _)| at == place);
            let value = same.map(|(_, x)| x);
            let tolerance = self.push(Phase::Forward, place.to_string(), value, expected, own);
            if place.op == Op::RouterLogits
                && let Some((router, at)) = routers.next()
                && !self.chooses(
                    (Phase::Forward, None),
                    router,
                    found.routing.get::<usize>(at),
                    tolerance,
                )
            {
                return false;
            }
        }
        true
    }

    /// The gradients, from the last parameter to the first.
    fn backward(&mut self, found: &Record, yardstick: &Yardstick) {
        let runs = yardstick.forward();
        let gradients = yardstick.double.gradients.iter();
        for (index, (name, expected)) in gradients.enumerate().rev() {
            let Some(expected) = expected else { continue };
            let runs = runs.iter().copied();
            let own = own(runs, expected, |run| gradient(run, index));
            let place = format!("gradient of {name}");
            self.push(
                Phase::Backward,
                place,
                gradient(found, index),
                expected,
                own,
            );
        }
    }

    /// The steps, and the parameters after some of them.
    fn trajectory(&mut self, found: &Record, yardstick: &Yardstick) {
        let double = &yardstick.double;
        let runs = yardstick.trajectories();
        let compared = self.routers_of_steps(found, yardstick, &runs);
        let loss: fn(&Step) -> f64 = |step| step.losses.mean;
        let auxiliary: fn(&Step) -> f64 = |step| step.losses.auxiliary();
        let norm: fn(&Step) -> f64 = |step| step.grad_norm;
        for (index, expected) in double.steps.iter().take(compared).enumerate() {
            for (what, of) in [
                ("loss", loss),
                ("routers' losses", auxiliary),
                ("gradient norm", norm),
            ] {
                if what == "routers' losses" && expected.routing.is_empty() {
                    continue;
                }
                let number = |step| Array {
                    shape: Vec::new(),
                    values: vec![of(step)],
                };
                let value = found.steps.get(index).map(number);
                let place = format!("step {}, {what}", index + 1);
                let own = own_along(&runs, double, of);
                let expected = number(expected);
                self.push(Phase::Trajectory, place, value.as_ref(), &expected, own);
            }
        }
        let kept = double.parameters.iter();
        let kept = kept.filter(|(step, _)| **step as usize <= compared);
        for (step, parameters) in kept {
            for (index, (name, expected)) in parameters.iter().enumerate() {
                // Over all steps that were kept: Adam divides noise by noise where a gradient is nearly zero.
                let own = double.parameters.iter().map(|(step, exact)| {
                    let runs = runs.iter().filter(|(_, agreed)| *step as usize <= *agreed);
                    let runs = runs.map(|(run, _)| *run);
                    own(runs, &exact[index].1, |run| parameter(run, *step, index))
                });
                let own = own.fold(0.0, f64::max);
                let place = format!("step {step}, {name}");
                let value = parameter(found, *step, index);
                self.push(Phase::Trajectory, place, value, expected, own);
            }
        }
    }

    /// How many steps can be compared: those before a router's first tie.
    fn routers_of_steps(
        &mut self,
        found: &Record,
        yardstick: &Yardstick,
        runs: &[(&Record, usize)],
    ) -> usize {
        for (index, expected) in yardstick.double.steps.iter().enumerate() {
            let agreeing = runs.iter().filter(|(_, agreed)| *agreed >= index);
            let at = (Phase::Trajectory, Some(index + 1));
            for (router, exact) in expected.routing.iter().enumerate() {
                let runs = agreeing.clone().map(|(run, _)| *run);
                let own = own(runs, &exact.logits, |run| {
                    logits_of_step(run, index, router)
                });
                let value = found
                    .steps
                    .get(index)
                    .and_then(|step| step.routing.get(router));
                let logits = value.map(|routed| &routed.logits.values[..]);
                let close = Check::close("", logits.unwrap_or(&[]), &exact.logits, own);
                let tolerance = match logits {
                    Some(_) => close.tolerance,
                    None => FACTOR * own,
                };
                if !self.chooses(at, exact, value, tolerance) {
                    return index;
                }
            }
            // Without an f32 run that agrees there is no measure of rounding from here on.
            let last = runs.iter().map(|(_, agreed)| *agreed).max();
            if last == Some(index) {
                let run = runs.first().and_then(|(run, _)| run.steps.get(index));
                let flip = run.and_then(|step| {
                    let mut pairs = expected.routing.iter().zip(&step.routing);
                    pairs.find_map(|(exact, single)| exact.flip(&single.chosen))
                });
                let (phase, step) = at;
                self.ties.extend(flip.map(|flip| Tie { phase, step, flip }));
                return index;
            }
        }
        yardstick.double.steps.len()
    }

    fn summary(self) -> Agreement {
        let checks = self.checks;
        let failed = checks.iter().filter(|(_, _, check)| !check.passed).count();
        let worst = checks.iter().map(|(_, _, check)| check);
        let worst = worst
            .max_by(|a, b| a.share().total_cmp(&b.share()))
            .cloned();
        let count = checks.len();
        let first = checks.into_iter().find(|(_, _, check)| !check.passed);
        Agreement {
            checks: count,
            failed,
            worst,
            first: first.map(|(phase, place, check)| Divergence {
                phase,
                place,
                check,
            }),
            ties: self.ties,
        }
    }
}

fn forward_value(run: &Record, index: usize) -> Option<&Array> {
    run.forward.get(index).map(|(_, x)| x)
}

fn gradient(run: &Record, index: usize) -> Option<&Array> {
    run.gradients.get(index)?.1.as_ref()
}

fn parameter(run: &Record, step: u64, index: usize) -> Option<&Array> {
    let parameters = run.parameters.get(&step)?;
    parameters.get(index).map(|(_, x)| x)
}

fn logits_of_step(run: &Record, index: usize, router: usize) -> Option<&Array> {
    let step = run.steps.get(index)?;
    step.routing.get(router).map(|routed| &routed.logits)
}
