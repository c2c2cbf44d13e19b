//! Twenty AdamW steps beside the reference: losses, learning rates, gradient norms, clipping, parameters.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module;
use hybridnorm_interop::{Array, InteropError, NameMap};

use super::case::{Digest, OptimizerSettings, SchedulerSettings, StepRecord, Trajectory};
use super::check::{Check, FACTOR};
use super::record::{Record, TrajectoryWork};
use crate::recipe::{AdamWConfig, Decay, ParamInfo, Schedule, ScheduleShape, params};

impl Trajectory {
    /// The trajectory to be computed on `batches`, `[steps, batch, seq]`.
    ///
    /// # Errors
    /// When it uses a schedule that is not implemented.
    pub fn work(&self, batches: Array) -> Result<TrajectoryWork, InteropError> {
        Ok(TrajectoryWork {
            batches,
            optimizer: optimizer(&self.optimizer),
            schedule: schedule(&self.scheduler, self.optimizer.peak_lr)?,
            keep: self.weights_after_step.keys().copied().collect(),
        })
    }

    /// What a device computed, against what the authors' code computed.
    pub fn compare<M: Module>(&self, found: &Record, model: &M, names: &NameMap) -> Vec<Check> {
        let mut checks = vec![groups(self, &optimizer(&self.optimizer), model, names)];
        checks.push(Check::exact(
            "trajectory steps",
            found.steps.len() == self.steps.len(),
            format!("{} of {}", found.steps.len(), self.steps.len()),
        ));
        let own = OwnErrors::of(&self.steps);
        for (record, step) in self.steps.iter().zip(&found.steps) {
            let at = format!("step {}", record.step);
            for (what, found, expected, own) in [
                ("loss_mean", step.losses.mean, record.loss_mean64, own.loss),
                (
                    "loss_train",
                    step.losses.train,
                    record.loss_train64,
                    own.loss,
                ),
                ("grad_norm", step.grad_norm, record.grad_norm64, own.norm),
                ("clip_coef", step.clip, record.clip_coef64, own.clip),
            ] {
                checks.push(number(
                    &format!("trajectory {what}"),
                    &at,
                    found,
                    expected,
                    own,
                ));
            }
            let total = step.losses.train + step.losses.auxiliary();
            for (what, found, expected, own) in [
                (
                    "lb_loss",
                    step.losses.balance,
                    record.lb_loss64,
                    own.balance,
                ),
                ("moe_z_loss", step.losses.z, record.moe_z_loss64, own.z),
                ("total_loss", Some(total), record.total_loss64, own.total),
            ] {
                let Some(expected) = expected else { continue };
                let (what, found) = (format!("trajectory {what}"), found.unwrap_or(0.0));
                checks.push(number(&what, &at, found, expected, own));
            }
            checks.push(Check::new(
                "trajectory lr",
                (step.lr - record.lr).abs(),
                1e-12 * record.lr.abs(),
                &at,
            ));
        }
        for (step, digests) in &self.weights_after_step {
            let mut left: BTreeMap<&String, &Digest> = digests.iter().collect();
            for (name, array) in found.parameters.get(step).into_iter().flatten() {
                checks.push(match left.remove(name) {
                    Some(digest) => {
                        compare_digest(name, *step, &array.values, digest, self.own_error(name))
                    }
                    None => no_twin(name, *step, "not in the reference"),
                });
            }
            let left = left.keys();
            checks.extend(left.map(|name| no_twin(name, *step, "not computed")));
        }
        let (single, double) = (
            self.loss_mean_on_input_ids_after_20_steps,
            self.loss_mean_on_input_ids_after_20_steps64,
        );
        let own = own.loss.max((single - double).abs());
        let last = found.last_loss.unwrap_or(f64::NAN);
        checks.push(number("loss after the trajectory", "", last, double, own));
        checks
    }

    /// The reference's own f32 error on a parameter, the largest over all recorded steps. Where a gradient is nearly
    /// zero (a key bias, say) Adam divides noise by noise, and the error of a single step is itself noise.
    fn own_error(&self, name: &str) -> f64 {
        let digests = self
            .weights_after_step
            .values()
            .filter_map(|digests| digests.get(name));
        digests.map(|digest| digest.max_abs_err).fold(0.0, f64::max)
    }
}

/// The reference's optimiser as ours.
pub fn optimizer(settings: &OptimizerSettings) -> AdamWConfig {
    AdamWConfig {
        beta1: settings.betas[0],
        beta2: settings.betas[1],
        epsilon: settings.eps,
        weight_decay: settings.weight_decay,
        decay_norm_and_bias: settings.decay_norm_and_bias,
        decay_embeddings: settings.decay_embeddings,
        max_grad_norm: settings.max_grad_norm,
    }
}

/// The reference's schedule as ours.
///
/// # Errors
/// When its name is unknown.
pub fn schedule(settings: &SchedulerSettings, peak: f64) -> Result<Schedule, InteropError> {
    let shape = match settings.name.as_str() {
        "cosine_with_warmup" => ScheduleShape::Cosine,
        "linear_with_warmup" => ScheduleShape::Linear,
        "inverse_sqrt_with_warmup" => ScheduleShape::InverseSqrt,
        "constant_with_warmup" => ScheduleShape::Constant,
        "cosine_linear_envelope" => ScheduleShape::CosineLinear,
        other => {
            return Err(InteropError::Unsupported {
                field: "scheduler".to_string(),
                value: other.to_string(),
                reason: "no such schedule here".to_string(),
            });
        }
    };
    Ok(Schedule {
        shape,
        peak,
        floor: settings.alpha_f,
        warmup_from: settings.warmup_min_lr.unwrap_or(0.1 * peak),
        warmup: settings.t_warmup,
        total: settings.t_max.unwrap_or(settings.max_steps),
        decay: Decay::default(),
    })
}

/// The reference's own f32 errors, the largest over all steps.
struct OwnErrors {
    loss: f64,
    norm: f64,
    clip: f64,
    balance: f64,
    z: f64,
    total: f64,
}

impl OwnErrors {
    fn of(steps: &[StepRecord]) -> Self {
        let largest = |of: fn(&StepRecord) -> f64| steps.iter().map(of).fold(0.0, f64::max);
        Self {
            loss: largest(|s| {
                (s.loss_mean - s.loss_mean64)
                    .abs()
                    .max((s.loss_train - s.loss_train64).abs())
            }),
            norm: largest(|s| (s.grad_norm - s.grad_norm64).abs()),
            clip: largest(|s| (s.clip_coef - s.clip_coef64).abs()),
            balance: largest(|s| difference(s.lb_loss, s.lb_loss64)),
            z: largest(|s| difference(s.moe_z_loss, s.moe_z_loss64)),
            total: largest(|s| difference(s.total_loss, s.total_loss64)),
        }
    }
}

/// |a − b|, 0 where either is absent.
fn difference(a: Option<f64>, b: Option<f64>) -> f64 {
    a.zip(b).map_or(0.0, |(a, b)| (a - b).abs())
}

fn number(what: &str, at: &str, found: f64, expected: f64, own: f64) -> Check {
    let expected = Array {
        shape: vec![1],
        values: vec![expected],
    };
    let mut check = Check::close(what, &[found], &expected, own);
    check.at = at.to_string();
    check
}

/// The sets of decayed parameters are the same.
fn groups<M: Module>(
    reference: &Trajectory,
    config: &AdamWConfig,
    model: &M,
    names: &NameMap,
) -> Check {
    let rule = config.groups();
    let ours: BTreeSet<String> = params(model)
        .iter()
        .filter(|param| config.weight_decay != 0.0 && rule.decays(param))
        .flat_map(|param| names_of(names, param))
        .collect();
    let theirs: BTreeSet<String> = reference
        .param_groups
        .iter()
        .filter(|group| group.weight_decay != 0.0)
        .flat_map(|group| group.param_names.iter().cloned())
        .collect();
    let odd: Vec<_> = ours.symmetric_difference(&theirs).cloned().collect();
    Check::exact("parameter groups", odd.is_empty(), odd.join(", "))
}

/// What a file calls a parameter; its own path where the file has no name for it.
pub fn names_of(names: &NameMap, param: &ParamInfo) -> Vec<String> {
    match names.layout(&param.path, &param.shape) {
        Some(layout) => layout.names().map(str::to_string).collect(),
        None => vec![param.path.clone()],
    }
}

/// A parameter that only one side has.
fn no_twin(name: &str, step: u64, why: &str) -> Check {
    Check::exact(format!("{name} after step {step}"), false, why)
}

/// The first and last values, the norm and the sum of a parameter.
fn compare_digest(name: &str, step: u64, found: &[f64], digest: &Digest, own: f64) -> Check {
    let what = format!("{name} after step {step}");
    let n = found.len();
    let ends = [
        &found[..digest.first.len().min(n)],
        &found[n - digest.last.len().min(n)..],
    ]
    .concat();
    let expected = Array {
        shape: vec![ends.len()],
        values: [&digest.first[..], &digest.last[..]].concat(),
    };
    let check = Check::close(&what, &ends, &expected, own);
    if !check.passed {
        return check;
    }
    // A norm moves by at most √n times the largest error of an element, a sum by n times.
    let l2 = found.iter().map(|x| x * x).sum::<f64>().sqrt();
    let rounding = digest
        .max_abs_err
        .max(digest.l2 / (n as f64).sqrt() * f64::from(f32::EPSILON));
    let l2_error = (l2 - digest.l2).abs() / (n as f64).sqrt();
    let sum_error = (found.iter().sum::<f64>() - digest.sum).abs() / n as f64;
    let whole = Check::new(
        what,
        l2_error.max(sum_error),
        FACTOR * rounding,
        "norm or sum",
    );
    if whole.share() > check.share() {
        whole
    } else {
        check
    }
}
