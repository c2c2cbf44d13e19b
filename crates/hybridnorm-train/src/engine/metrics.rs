//! The figures of a step and of an evaluation, and the Burn metrics that carry them to the renderer.

use std::marker::PhantomData;
use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use serde::{Deserialize, Serialize};

use super::routers::RouterRecord;
use crate::recipe::UpdateRatios;

/// The figures of one optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, counted from 1.
    pub step: u64,
    /// Tokens trained on, this step's included.
    pub tokens: u64,
    /// Mean cross-entropy in nats per token, before the step.
    pub loss: f64,
    /// Load balancing loss times its weight, which is trained on beside `loss`; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balance_loss: Option<f64>,
    /// Router z-loss times its weight, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router_z_loss: Option<f64>,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the averaged gradient, before clipping.
    pub grad_norm: f64,
    /// Tokens in the step over the seconds it took: data, forward, backward, optimiser.
    pub tokens_per_s: f64,
    /// Model FLOPs utilisation: what the model's arithmetic needed of `peak_tflops`; absent where no peak is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    /// The most that the device can do in the precision of the run, in 10¹² operations a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_tflops: Option<f64>,
    /// True where that peak was measured when the process started, which makes `mfu` an estimate; absent where its maker tells it.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub peak_measured: bool,
    /// How far the step moved the weights of each group over their size, ‖Δw‖/‖w‖; every `training.update_ratio_every`.
    #[serde(default, skip_serializing_if = "UpdateRatios::is_empty")]
    pub update_ratios: UpdateRatios,
    /// Seconds of training so far, over all restarts.
    pub elapsed_s: f64,
    /// What the routers did in the step, in layer order; absent from a dense model's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routers: Vec<RouterRecord>,
}

impl StepRecord {
    /// One figure of the router whose tokens spread over the fewest experts; NaN for a dense model.
    pub(super) fn worst_router(&self, figure: fn(&RouterRecord) -> f64) -> f64 {
        let spread = |router: &&RouterRecord| router.effective_experts;
        let worst = self
            .routers
            .iter()
            .min_by(|a, b| spread(a).total_cmp(&spread(b)));
        worst.map_or(f64::NAN, figure)
    }
}

/// The figures of one evaluation on held-out data.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Mean cross-entropy in nats per token.
    pub nats_per_token: f64,
    /// Mean cross-entropy in bits per byte of text.
    pub bits_per_byte: f64,
}

/// A Burn metric that shows one field of a record `R` as it is.
#[derive(Debug)]
pub(super) struct Scalar<R> {
    name: MetricName,
    pick: fn(&R) -> f64,
    value: Option<f64>,
    record: PhantomData<fn(R)>,
}

/// Names of the metrics, as the renderer gets them.
pub(super) mod names {
    pub(in crate::engine) const LOSS: &str = "Loss";
    pub(in crate::engine) const LR: &str = "Learning rate";
    pub(in crate::engine) const GRAD_NORM: &str = "Gradient norm";
    pub(in crate::engine) const SPEED: &str = "Tokens/s";
    pub(in crate::engine) const MFU: &str = "MFU, %";
    pub(in crate::engine) const MFU_ESTIMATED: &str = "MFU, % est.";
    pub(in crate::engine) const EXPERTS: &str = "Fewest effective experts";
    pub(in crate::engine) const WORST: &str = "Layer with the fewest effective experts";
    pub(in crate::engine) const FULLEST: &str = "Its fullest expert's load over its share";
    pub(in crate::engine) const NATS: &str = "Nats/token";
    pub(in crate::engine) const BITS: &str = "Bits/byte";
}

impl<R> Scalar<R> {
    pub(super) fn new(name: &str, pick: fn(&R) -> f64) -> Self {
        Self {
            name: Arc::new(name.to_string()),
            pick,
            value: None,
            record: PhantomData,
        }
    }

    fn entry(&self) -> SerializedEntry {
        match self.value {
            Some(value) => SerializedEntry::new(format!("{value:.4}"), value.to_string()),
            None => SerializedEntry::not_available(None),
        }
    }
}

impl<R> Clone for Scalar<R> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            ..*self
        }
    }
}

impl<R> Metric for Scalar<R> {
    type Input = Option<R>;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes {
            unit: None,
            higher_is_better: [names::SPEED, names::MFU, names::MFU_ESTIMATED]
                .contains(&self.name.as_str()),
        }
        .into()
    }

    fn update(
        &mut self,
        record: &Option<R>,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.value = record.as_ref().map(self.pick);
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {
        self.value = None;
    }
}

impl<R> Numeric for Scalar<R> {
    fn value(&self) -> Option<NumericEntry> {
        self.value.map(NumericEntry::Value)
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.value.unwrap_or(f64::NAN))
    }
}
