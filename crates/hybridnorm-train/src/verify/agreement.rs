//! One device beside the yardstick: `flex`, which is itself held against the authors' numbers.
//!
//! The yardstick computes the same work twice, in f64 and in f32. A device may be off from the f64 values by [`FACTOR`] times what
//! the yardstick's own f32 is off, value by value; nothing here is a typed-in tolerance. Values are compared in the order of their
//! computation, so that the first one that is off names the operation that went wrong, before its error spreads.
//!
//! [`FACTOR`]: super::FACTOR

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor};
use hybridnorm_core::Decoder;
use hybridnorm_interop::Array;
use serde::Serialize;

use super::check::{Check, largest_difference};
use super::record::{Record, Step};

/// What the yardstick computed of one piece of work.
#[derive(Debug)]
pub struct Yardstick {
    /// In f32.
    pub single: Record,
    /// In f64.
    pub double: Record,
}

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

/// The same model with f64 parameters, for a yardstick.
pub fn in_f64(model: Decoder) -> Decoder {
    struct ToF64;
    impl ModuleMapper for ToF64 {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| Tensor::from_inner(x.inner().cast(FloatDType::F64)).require_grad())
        }
    }
    model.map(&mut ToF64)
}

/// Compares what a device computed with the yardstick.
pub fn compare(found: &Record, yardstick: &Yardstick) -> Agreement {
    let Yardstick { single, double } = yardstick;
    let mut checks = Vec::new();
    let mut push = |phase, place: String, check| checks.push((phase, place, check));

    for (index, (place, expected)) in double.forward.iter().enumerate() {
        let place = place.to_string();
        let own = off(single.forward.get(index).map(|(_, x)| x), expected);
        let check = match found.forward.get(index) {
            Some((at, value)) if at.to_string() == place => {
                Check::close(&place, &value.values, expected, own)
            }
            _ => Check::exact(&place, false, "not computed"),
        };
        push(Phase::Forward, place, check);
    }
    for (index, (name, expected)) in double.gradients.iter().enumerate().rev() {
        let Some(expected) = expected else { continue };
        let own = single.gradients.get(index).and_then(|(_, x)| x.as_ref());
        let own = off(own, expected);
        let check = match found.gradients.get(index).and_then(|(_, x)| x.as_ref()) {
            Some(value) => Check::close(name, &value.values, expected, own),
            None => Check::exact(name, false, "no gradient"),
        };
        push(Phase::Backward, format!("gradient of {name}"), check);
    }
    // The yardstick's own error along the trajectory, the largest over its steps: that of a single step may be small by luck.
    let own = |of: fn(&Step) -> f64| {
        let pairs = single.steps.iter().zip(&double.steps);
        pairs
            .map(|(a, b)| (of(a) - of(b)).abs())
            .fold(0.0, f64::max)
    };
    let loss: fn(&Step) -> f64 = |step| step.losses.mean;
    let norm: fn(&Step) -> f64 = |step| step.grad_norm;
    for (index, expected) in double.steps.iter().enumerate() {
        for (what, of) in [("loss", loss), ("gradient norm", norm)] {
            let place = format!("step {}, {what}", index + 1);
            let found = found.steps.get(index).map_or(f64::NAN, of);
            let expected = Array {
                shape: vec![1],
                values: vec![of(expected)],
            };
            let mut check = Check::close(&place, &[found], &expected, own(of));
            check.at.clear();
            push(Phase::Trajectory, place, check);
        }
    }
    for (step, parameters) in &double.parameters {
        for (index, (name, expected)) in parameters.iter().enumerate() {
            let of = |record: &'_ Record| -> Option<Array> {
                let (_, array) = record.parameters.get(step)?.get(index)?;
                Some(array.clone())
            };
            // As above: Adam divides noise by noise where a gradient is nearly zero.
            let own = double.parameters.iter().filter_map(|(step, parameters)| {
                let (_, single) = single.parameters.get(step)?.get(index)?;
                Some(off(Some(single), &parameters.get(index)?.1))
            });
            let own = own.fold(0.0, f64::max);
            let place = format!("step {step}, {name}");
            let check = match of(found) {
                Some(value) => Check::close(&place, &value.values, expected, own),
                None => Check::exact(&place, false, "no such parameter"),
            };
            push(Phase::Trajectory, place, check);
        }
    }
    summary(checks)
}

fn summary(checks: Vec<(Phase, String, Check)>) -> Agreement {
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
    }
}

/// The yardstick's own f32 error on a value.
fn off(single: Option<&Array>, double: &Array) -> f64 {
    single.map_or(0.0, |single| {
        largest_difference(&single.values, &double.values)
    })
}
