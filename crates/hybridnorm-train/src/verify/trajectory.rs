//! Twenty AdamW steps beside the reference: losses, learning rates, gradient norms, clipping, parameters.

use std::collections::BTreeSet;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use hybridnorm_core::Decoder;
use hybridnorm_interop::official::name_of;
use hybridnorm_interop::{Array, InteropError};

use super::case::{CaseDir, Digest, OptimizerSettings, SchedulerSettings, StepRecord, Trajectory};
use super::check::{Check, FACTOR};
use super::dense::reference_losses;
use super::values::{parameters, values_of};
use crate::recipe::{
    AdamW, AdamWConfig, GradientNorms, Schedule, ScheduleShape, clip_coefficient, params,
};

/// Repeats the trajectory in `dir` from `model`'s weights.
///
/// # Errors
/// When the trajectory cannot be read, or uses a schedule that is not implemented.
pub fn run(
    dir: &CaseDir,
    mut model: Decoder,
    inputs: &Array,
    batches: &Array,
    device: &Device,
) -> Result<Vec<Check>, InteropError> {
    let reference: Trajectory = dir.json("trajectory.json")?;
    let config = optimizer(&reference.optimizer);
    let schedule = schedule(&reference.scheduler, reference.optimizer.peak_lr)?;
    let mut checks = vec![groups(&reference, &config, &model)];
    let mut adamw = AdamW::new(config.clone(), &model);
    let batches = Tensor::<3, Int>::from_data(batches.to_i64(), device);
    let own = OwnErrors::of(&reference.steps);
    for record in &reference.steps {
        let at = format!("step {}", record.step);
        let ids: Tensor<2, Int> = batches
            .clone()
            .narrow(0, record.step as usize - 1, 1)
            .squeeze_dim(0);
        let (mean, train) = reference_losses(model.forward(ids.clone()), ids);
        let losses = values_of(Tensor::cat(vec![mean, train.clone()], 0));
        let grads = GradientsParams::from_grads(train.backward(), &model);
        let norm = GradientNorms::measure(&grads, &model)
            .map_err(|error| failed(dir, &error.to_string()))?
            .global();
        let clip = clip_coefficient(norm, config.max_grad_norm);
        let lr = schedule.at(record.step);
        checks.extend([
            number(
                "trajectory loss_mean",
                &at,
                losses[0],
                record.loss_mean64,
                own.loss,
            ),
            number(
                "trajectory loss_train",
                &at,
                losses[1],
                record.loss_train64,
                own.loss,
            ),
            number(
                "trajectory grad_norm",
                &at,
                norm,
                record.grad_norm64,
                own.norm,
            ),
            number(
                "trajectory clip_coef",
                &at,
                clip,
                record.clip_coef64,
                own.clip,
            ),
            Check::new(
                "trajectory lr",
                (lr - record.lr).abs(),
                1e-12 * record.lr.abs(),
                &at,
            ),
        ]);
        model = adamw.step(model, grads, lr, clip);
        if let Some(digests) = reference.weights_after_step.get(&record.step) {
            for (name, array) in parameters(&model) {
                checks.push(match digests.get(&name) {
                    Some(digest) => {
                        let own = reference.own_error(&name);
                        compare_digest(&name, record.step, &array.values, digest, own)
                    }
                    None => Check::exact(
                        format!("{name} after step {}", record.step),
                        false,
                        "not in the reference",
                    ),
                });
            }
        }
    }
    let ids = Tensor::<2, Int>::from_data(inputs.to_i64(), device);
    let (mean, _) = reference_losses(model.forward(ids.clone()), ids);
    let found = values_of(mean)[0];
    let double = reference.loss_mean_on_input_ids_after_20_steps64;
    let own = own
        .loss
        .max((reference.loss_mean_on_input_ids_after_20_steps - double).abs());
    checks.push(number("loss after the trajectory", "", found, double, own));
    Ok(checks)
}

impl Trajectory {
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

fn failed(dir: &CaseDir, reason: &str) -> InteropError {
    InteropError::Format {
        path: dir.0.clone(),
        expected: "reference",
        reason: reason.to_string(),
    }
}
