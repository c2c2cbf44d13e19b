//! One device beside the yardstick: `flex`, which is itself held against the authors' numbers.
//!
//! The yardstick computes the same work in f64, in f32, and in f32 from parameters that are a rounding away. A device may be off from
//! the f64 values by [`FACTOR`] times the most that those f32 runs are off, value by value: what rounding alone does to this value,
//! where a single run may be close by luck. Nothing here is a typed-in tolerance. Values are compared in the order of their
//! computation, so that the first one that is off names the operation that went wrong, before its error spreads.
//!
//! [`FACTOR`]: super::FACTOR

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData, TensorReadError};
use hybridnorm_core::Decoder;
use hybridnorm_interop::Array;
use serde::Serialize;

use super::check::{Check, largest_difference};
use super::record::{Record, Step, Work, record};

/// What the yardstick computed of one piece of work.
#[derive(Debug)]
pub struct Yardstick {
    /// In f32: as it is, and from parameters a rounding away.
    single: Vec<Record>,
    /// In f64.
    double: Record,
}

impl Yardstick {
    /// Computes `work` on `device`, an autodiff device; `model` builds the model there.
    ///
    /// # Errors
    /// When the model cannot be built or the device fails.
    pub fn measure<E: From<TensorReadError>>(
        work: &Work,
        device: &Device,
        model: impl Fn(&Device) -> Result<Decoder, E>,
    ) -> Result<Self, E> {
        /// Runs whose parameters are a rounding away.
        const NEIGHBOURS: u32 = 3;
        let mut single = vec![record(model(device)?, work, device)?];
        for seed in 1..=NEIGHBOURS {
            single.push(record(a_rounding_away(model(device)?, seed), work, device)?);
        }
        Ok(Self {
            single,
            double: record(in_f64(model(device)?), work, device)?,
        })
    }

    /// The most that any f32 run is off from `exact`.
    fn own<'a>(&'a self, exact: &Array, of: impl Fn(&'a Record) -> Option<&'a Array>) -> f64 {
        let errors = self.single.iter().filter_map(of);
        let errors = errors.map(|single| largest_difference(&single.values, &exact.values));
        errors.fold(0.0, f64::max)
    }

    /// The same for a number of each step, over all steps.
    fn own_along(&self, of: fn(&Step) -> f64) -> f64 {
        let errors = self.single.iter().flat_map(|single| {
            let pairs = single.steps.iter().zip(&self.double.steps);
            pairs.map(move |(a, b)| (of(a) - of(b)).abs())
        });
        errors.fold(0.0, f64::max)
    }
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

/// The same model with f64 parameters.
fn in_f64(model: Decoder) -> Decoder {
    struct ToF64;
    impl ModuleMapper for ToF64 {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| Tensor::from_inner(x.inner().cast(FloatDType::F64)).require_grad())
        }
    }
    model.map(&mut ToF64)
}

/// The same model with every parameter moved up or down by one unit in the last place, as a hash of its index says.
fn a_rounding_away(model: Decoder, seed: u32) -> Decoder {
    struct Nudge(u32);
    impl ModuleMapper for Nudge {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| {
                let x = x.inner();
                let hash = |i: u32| (i ^ self.0.rotate_left(16)).wrapping_mul(0x9e37_79b1) >> 31;
                let unit = |i| 1.0 + f32::EPSILON * if hash(i) == 0 { 1.0 } else { -1.0 };
                let factors: Vec<f32> = (0..x.shape().num_elements() as u32).map(unit).collect();
                let factors = Tensor::from_data(TensorData::new(factors, x.shape()), &x.device());
                Tensor::from_inner(x * factors).require_grad()
            })
        }
    }
    model.map(&mut Nudge(seed))
}

/// Compares what a device computed with the yardstick.
pub fn compare(found: &Record, yardstick: &Yardstick) -> Agreement {
    let double = &yardstick.double;
    let mut checks = Vec::new();
    let mut push = |phase, place: String, found: Option<&Array>, expected: &Array, own| {
        let check = match found {
            Some(value) => Check::close(&place, &value.values, expected, own),
            None => Check::exact(&place, false, "not computed"),
        };
        checks.push((phase, place, check));
    };
    for (index, (place, expected)) in double.forward.iter().enumerate() {
        let own = yardstick.own(expected, |single| Some(&single.forward.get(index)?.1));
        let same = found.forward.get(index).filter(|(at, _)| at == place);
        push(
            Phase::Forward,
            place.to_string(),
            same.map(|(_, x)| x),
            expected,
            own,
        );
    }
    for (index, (name, expected)) in double.gradients.iter().enumerate().rev() {
        let Some(expected) = expected else { continue };
        let own = yardstick.own(expected, |single| single.gradients.get(index)?.1.as_ref());
        let value = found.gradients.get(index).and_then(|(_, x)| x.as_ref());
        push(
            Phase::Backward,
            format!("gradient of {name}"),
            value,
            expected,
            own,
        );
    }
    let loss: fn(&Step) -> f64 = |step| step.losses.mean;
    let norm: fn(&Step) -> f64 = |step| step.grad_norm;
    for (index, expected) in double.steps.iter().enumerate() {
        for (what, of) in [("loss", loss), ("gradient norm", norm)] {
            let number = |step| Array {
                shape: Vec::new(),
                values: vec![of(step)],
            };
            let value = found.steps.get(index).map(number);
            let place = format!("step {}, {what}", index + 1);
            let own = yardstick.own_along(of);
            push(
                Phase::Trajectory,
                place,
                value.as_ref(),
                &number(expected),
                own,
            );
        }
    }
    for (step, parameters) in &double.parameters {
        for (index, (name, expected)) in parameters.iter().enumerate() {
            // Over all steps that were kept: Adam divides noise by noise where a gradient is nearly zero.
            let own = double.parameters.iter().map(|(step, exact)| {
                yardstick.own(&exact[index].1, |single| {
                    Some(&single.parameters.get(step)?.get(index)?.1)
                })
            });
            let own = own.fold(0.0, f64::max);
            let value = found.parameters.get(step).and_then(|list| list.get(index));
            let place = format!("step {step}, {name}");
            push(
                Phase::Trajectory,
                place,
                value.map(|(_, x)| x),
                expected,
                own,
            );
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
