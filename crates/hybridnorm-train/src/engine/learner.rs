//! Burn's learner, as this program uses it.

use std::path::Path;
use std::sync::Arc;

use burn::train::renderer::MetricsRenderer;
use burn::train::{Interrupter, SupervisedTraining};

use super::loader::TokenLoader;
use super::metrics::{Evaluation, Scalar, StepRecord, names};
use super::model::LanguageModel;
use super::unlogged;
use crate::mfu::Utilization;

/// Burn's learner with our metrics and renderer, and nothing it would write by itself.
pub(super) fn new(
    run_dir: &Path,
    train: Arc<TokenLoader>,
    valid: Arc<TokenLoader>,
    interrupter: &Interrupter,
    renderer: Box<dyn MetricsRenderer>,
) -> SupervisedTraining<LanguageModel> {
    type Step = Scalar<StepRecord>;
    type Eval = Scalar<Evaluation>;
    SupervisedTraining::new(run_dir, train, valid)
        .num_epochs(1)
        .with_interrupter(interrupter.clone())
        .with_application_logger(None)
        .with_metric_logger(unlogged::Unlogged)
        .renderer(renderer)
        .metric_train_numeric(Step::new(names::LOSS, |record| record.loss))
        .metric_train_numeric(Step::new(names::LR, |record| record.lr))
        .metric_train_numeric(Step::new(names::GRAD_NORM, |record| record.grad_norm))
        .metric_train_numeric(Step::new(names::SPEED, |record| record.tokens_per_s))
        .metric_valid_numeric(Eval::new(names::NATS, |evaluation| {
            evaluation.nats_per_token
        }))
        .metric_valid_numeric(Eval::new(names::BITS, |evaluation| {
            evaluation.bits_per_byte
        }))
}

/// The metrics that not every run has.
pub(super) fn with_optional_metrics(
    mut learner: SupervisedTraining<LanguageModel>,
    sparse: bool,
    utilization: Option<Utilization>,
) -> SupervisedTraining<LanguageModel> {
    type Step = Scalar<StepRecord>;
    if let Some(Utilization { peak, .. }) = utilization {
        let name = match peak.measured {
            true => names::MFU_ESTIMATED,
            false => names::MFU,
        };
        learner = learner.metric_train_numeric(Step::new(name, |record| {
            record.mfu.map_or(f64::NAN, |mfu| 100.0 * mfu)
        }));
    }
    if !sparse {
        return learner;
    }
    learner
        .metric_train_numeric(Step::new(names::EXPERTS, |record| {
            record.worst_router(|router| router.effective_experts)
        }))
        .metric_train_numeric(Step::new(names::FULLEST, |record| {
            record.worst_router(|router| router.max_violation + 1.0)
        }))
        .metric_train_numeric(Step::new(names::WORST, |record| {
            record.worst_router(|router| router.layer as f64)
        }))
}
