//! The routers of a sparse model while it trains: what they did in a step, whether they collapse, and why a loss is not finite.

use std::collections::BTreeSet;

use burn::tensor::Tensor;
use hybridnorm_core::trace::Op;
use hybridnorm_moe::health::HealthMeter;
use hybridnorm_moe::{FeedForwardLayer, RouterHealth, Routing, RoutingError};
use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::model::{LanguageModel, TokenBatch};

/// A router in `metrics.jsonl`; see [`RouterHealth`] for what the figures mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterRecord {
    /// The block, from 0.
    pub layer: usize,
    /// Experts that got no token.
    pub dead: usize,
    /// The fullest expert's load above its share, as a part of that.
    pub max_violation: f64,
    /// How many experts the tokens spread over.
    pub effective_experts: f64,
    /// 1 where the router has no opinion, 0 where it is sure.
    pub entropy: f64,
    /// Share of token copies that a capacity dropped.
    pub dropped: f64,
    /// Tokens of each expert over its equal share; in the steps that an evaluation follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Vec<f64>>,
}

impl RouterRecord {
    /// Of the routers of a step, in layer order, with or without their loads.
    pub(super) fn of(routers: &[RouterHealth], with_load: bool) -> Vec<Self> {
        let record = |(index, health): (usize, &RouterHealth)| Self {
            layer: health.layer.unwrap_or(index),
            dead: health.dead,
            max_violation: health.max_violation,
            effective_experts: health.effective_experts,
            entropy: health.entropy,
            dropped: health.dropped,
            load: with_load.then(|| health.load.clone()),
        };
        routers.iter().enumerate().map(record).collect()
    }
}

/// Sums up what each sparse layer does over the micro-batches of a step; empty for a dense model.
#[derive(Default)]
pub(super) struct RouterMeters(Vec<(usize, HealthMeter)>);

impl RouterMeters {
    /// Adds a micro-batch.
    pub fn add(&mut self, routings: &[Routing]) -> Result<(), RoutingError> {
        if let Some(error) = routings.iter().find_map(|routing| routing.error.clone()) {
            return Err(error);
        }
        if self.0.is_empty() {
            let meter = |(index, routing): (usize, &Routing)| {
                (routing.layer.unwrap_or(index), HealthMeter::new(routing))
            };
            self.0 = routings.iter().enumerate().map(meter).collect();
        } else {
            let meters = self.0.iter_mut().zip(routings);
            meters.for_each(|((_, meter), routing)| meter.add(routing));
        }
        Ok(())
    }

    /// Adds what another device has summed up, whose micro-batches come behind.
    pub fn absorb(&mut self, other: Self) {
        let meters = self.0.iter_mut().zip(other.0);
        meters.for_each(|((_, meter), (_, other))| meter.absorb(other));
    }

    /// What [`health`](Self::health) takes, each `[1]`, on the device and without autodiff.
    pub fn entropies(&self) -> impl Iterator<Item = Tensor<1>> {
        self.0.iter().map(|(_, meter)| {
            let entropy = meter.entropy();
            match entropy.device().is_autodiff() {
                true => entropy.inner(),
                false => entropy,
            }
        })
    }

    /// The health of each layer, given its entropy.
    pub fn health(&self, entropies: impl Iterator<Item = f64>) -> Vec<RouterHealth> {
        let meters = self.0.iter().zip(entropies);
        meters
            .map(|((_, meter), entropy)| meter.health(entropy))
            .collect()
    }

    /// Lets each router move its selection bias, where it has one.
    pub fn rebalance(&self, mut model: LanguageModel) -> LanguageModel {
        if self.0.is_empty() {
            return model;
        }
        let load = |layer| self.0.iter().find(|(known, _)| *known == layer);
        let blocks = model.decoder.blocks.into_iter().enumerate();
        let blocks = blocks.map(|(layer, mut block)| {
            block.feed_forward = match (block.feed_forward, load(layer)) {
                (FeedForwardLayer::Sparse(sparse), Some((_, meter))) => {
                    FeedForwardLayer::Sparse(sparse.rebalance(meter.load()))
                }
                (other, _) => other,
            };
            block
        });
        model.decoder.blocks = blocks.collect();
        model
    }
}

/// Tells when a router collapses and when it recovers, once each. It has recovered when its tokens spread over half way from its
/// `top_k` to all experts, twice as far as what counts as collapsed: one that stays near that line is told of once.
#[derive(Debug, Default)]
pub(super) struct RouterWatch {
    collapsed: BTreeSet<usize>,
}

/// A router that has begun to do badly, or has stopped to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RouterEvent {
    /// The block, from 0.
    pub layer: usize,
    /// Whether it has collapsed.
    pub collapsed: bool,
    /// A sentence.
    pub message: String,
}

impl RouterWatch {
    /// Goes on where these layers' routers were known to have collapsed.
    pub fn new(collapsed: BTreeSet<usize>) -> Self {
        Self { collapsed }
    }

    /// What has changed with this step.
    pub fn look(&mut self, routers: &[RouterHealth]) -> Vec<RouterEvent> {
        let event = |(index, health): (usize, &RouterHealth)| {
            let layer = health.layer.unwrap_or(index);
            match health.collapse() {
                Some(message) if self.collapsed.insert(layer) => Some(RouterEvent {
                    layer,
                    collapsed: true,
                    message,
                }),
                None if recovered(health) && self.collapsed.remove(&layer) => Some(RouterEvent {
                    layer,
                    collapsed: false,
                    message: format!(
                        "the router of layer {layer} has recovered: its tokens spread over {:.1} of {} experts",
                        health.effective_experts,
                        health.load.len()
                    ),
                }),
                _ => None,
            }
        };
        routers.iter().enumerate().filter_map(event).collect()
    }
}

fn recovered(health: &RouterHealth) -> bool {
    let halfway = (health.top_k + health.load.len()) as f64 / 2.0;
    health.effective_experts >= halfway
}

/// Why a loss or gradient is not finite, if the first value of its forward pass that is not are a router's logits: computes the step's
/// passes once more.
pub(super) fn cause(
    model: &LanguageModel,
    micro_batches: &[TokenBatch],
    step: u64,
) -> Option<TrainError> {
    for (index, batch) in micro_batches.iter().enumerate() {
        let mut pass = model.pass(batch).traced();
        model.loss_in(batch.clone(), &mut pass);
        let routings = std::mem::take(&mut pass.reports);
        let trace = pass.into_trace()?;
        let first = trace.values().iter().find(|(_, value)| !is_finite(value));
        let Some((place, _)) = first else {
            continue;
        };
        let routing = routings
            .iter()
            .find(|routing| place.op == Op::RouterLogits && routing.layer == place.layer)?;
        let source = routing.check().err()?;
        return Some(TrainError::Routing {
            step,
            micro_batch: index + 1,
            source,
        });
    }
    None
}

/// A value that cannot be read counts as finite: it names nothing.
fn is_finite(value: &Tensor<3>) -> bool {
    let values = value.clone().detach().try_into_vec_as::<f32>();
    values.map_or(true, |values| values.iter().all(|value| value.is_finite()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A router of 8 experts with top-2, whose tokens spread evenly over `n` of them.
    fn over(n: usize) -> RouterHealth {
        RouterHealth {
            layer: Some(3),
            load: (0..8)
                .map(|expert| if expert < n { 8.0 / n as f64 } else { 0.0 })
                .collect(),
            dead: 8 - n,
            max_violation: 8.0 / n as f64 - 1.0,
            effective_experts: n as f64,
            entropy: 0.5,
            dropped: 0.0,
            top_k: 2,
        }
    }

    #[test]
    fn a_router_near_the_line_is_told_of_once() {
        let mut watch = RouterWatch::default();
        let told = [8, 3, 4, 3, 4, 2, 5, 4, 3].map(|n| {
            let events = watch.look(&[over(n)]);
            events.first().map(|event| event.collapsed)
        });
        let (begins, ends) = (Some(true), Some(false));
        assert_eq!(
            told,
            [None, begins, None, None, None, None, ends, None, begins]
        );
    }

    #[test]
    fn what_was_known_is_not_told_again() {
        let mut watch = RouterWatch::new(BTreeSet::from([3]));
        assert_eq!(watch.look(&[over(2)]), []);
        assert!(!watch.look(&[over(8)])[0].collapsed);
    }
}
