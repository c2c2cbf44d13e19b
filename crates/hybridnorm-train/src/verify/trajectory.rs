//! Twenty AdamW steps beside the reference: losses, learning rates, gradient norms, clipping, parameters.

use std::collections::BTreeSet;

use hybridnorm_core::Decoder;
use hybridnorm_interop::official::name_of;
use hybridnorm_interop::{Array, InteropError};

use super::case::{Digest, OptimizerSettings, SchedulerSettings, StepRecord, Trajectory};
use super::check::{Check, FACTOR};
use super::record::{Record, TrajectoryWork};
use crate::recipe::{AdamWConfig, Schedule, ScheduleShape, params};

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
    pub fn compare(&self, found: &Record, model: &Decoder) -> Vec<Check> {
        let mut checks = vec![groups(self, &optimizer(&self.optimizer), model)];
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
            checks.push(Check::new(
                "trajectory lr",
                (step.lr - record.lr).abs(),
                1e-12 * record.lr.abs(),
                &at,
            ));
        }
        for (step, digests) in &self.weights_after_step {
            for (name, array) in found.parameters.get(step).into_iter().flatten() {
                checks.push(match digests.get(name) {
                    Some(digest) => {
                        compare_digest(name, *step, &array.values, digest, self.own_error(name))
                    }
                    None => Check::exact(
                        format!("{name} after step {step}"),
                        false,
                        "not in the reference",
                    ),
                });
            }
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
    })
}

/// The reference's own f32 errors, the largest over all steps.
struct OwnErrors {
    loss: f64,
    norm: f64,
    clip: f64,
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
        }
    }
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
fn groups(reference: &Trajectory, config: &AdamWConfig, model: &Decoder) -> Check {
    let rule = config.groups();
    let ours: BTreeSet<String> = params(model)
        .iter()
        .filter(|param| config.weight_decay != 0.0 && rule.decays(param))
        .map(|param| name_of(&param.path).map_or(param.path.clone(), |named| named.name))
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
