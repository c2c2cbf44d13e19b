//! Whether a router uses its experts: what is worth watching while a sparse model trains.

use burn::tensor::{Tensor, TensorReadError};
use serde::{Deserialize, Serialize};

use crate::router::Routing;

/// What a router did over some tokens, say those of an optimiser step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterHealth {
    /// The block, from 0; `None` outside a decoder.
    pub layer: Option<usize>,
    /// Tokens of each expert over its equal share: 1 everywhere in perfect balance.
    pub load: Vec<f64>,
    /// Experts that got no token.
    pub dead: usize,
    /// The fullest expert's load above its share, as a part of that: max load − 1 (arXiv 2408.15664, "MaxVio").
    pub max_violation: f64,
    /// exp of the entropy of the load: how many experts the tokens spread over; from 1 to the number of experts.
    pub effective_experts: f64,
    /// Mean entropy of a token's probabilities over that of equal ones: 1 where the router has no opinion, 0 where it is sure.
    pub entropy: f64,
    /// Share of token copies that a capacity dropped.
    pub dropped: f64,
    /// Experts for each token.
    pub top_k: usize,
}

/// Sums up what one layer's router does, pass by pass.
#[derive(Debug, Clone)]
pub struct HealthMeter {
    layer: Option<usize>,
    top_k: usize,
    load: Vec<u64>,
    dropped: u64,
    /// Σ over tokens of the entropy in nats, still on the device.
    entropy: Tensor<1>,
}

impl HealthMeter {
    /// Starts with one forward pass.
    pub fn new(routing: &Routing) -> Self {
        Self {
            layer: routing.layer,
            top_k: routing.top_k(),
            load: routing.load.iter().map(|n| *n as u64).collect(),
            dropped: routing.dropped as u64,
            entropy: entropy(routing),
        }
    }

    /// Adds another pass of the same layer.
    pub fn add(&mut self, routing: &Routing) {
        self.load
            .iter_mut()
            .zip(&routing.load)
            .for_each(|(sum, n)| *sum += *n as u64);
        self.dropped += routing.dropped as u64;
        self.entropy = self.entropy.clone() + entropy(routing);
    }

    /// Adds what another meter of the same layer has summed up, on whichever device.
    pub fn absorb(&mut self, other: Self) {
        self.load
            .iter_mut()
            .zip(other.load)
            .for_each(|(sum, n)| *sum += n);
        self.dropped += other.dropped;
        let entropy = self.entropy.clone();
        let device = entropy.device();
        self.entropy = entropy + other.entropy.to_device(&device);
    }

    /// Tokens of each expert so far: what [`Router::rebalance`](crate::Router::rebalance) takes.
    pub fn load(&self) -> &[u64] {
        &self.load
    }

    /// Σ over tokens of the entropy of their probabilities, in nats, `[1]`: what [`health`](Self::health) takes, still on the device,
    /// for a caller that reads it together with something else.
    pub fn entropy(&self) -> Tensor<1> {
        self.entropy.clone()
    }

    /// The health of several layers, with one read from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn read(meters: &[Self]) -> Result<Vec<RouterHealth>, TensorReadError> {
        if meters.is_empty() {
            return Ok(Vec::new());
        }
        let entropies = Tensor::cat(
            meters.iter().map(|meter| meter.entropy.clone()).collect(),
            0,
        );
        let entropies: Vec<f32> = entropies.try_into_vec_as()?;
        Ok(meters
            .iter()
            .zip(entropies)
            .map(|(meter, sum)| meter.health(f64::from(sum)))
            .collect())
    }

    /// The health, given what [`entropy`](Self::entropy) was when it was read.
    pub fn health(&self, entropy: f64) -> RouterHealth {
        let experts = self.load.len() as f64;
        let copies: u64 = self.load.iter().sum();
        let copies = copies as f64;
        let share = copies / experts;
        let load: Vec<f64> = self.load.iter().map(|n| *n as f64 / share).collect();
        let load_entropy: f64 = self
            .load
            .iter()
            .filter(|n| **n > 0)
            .map(|n| *n as f64 / copies)
            .map(|p| -p * p.ln())
            .sum();
        let most = experts.ln();
        RouterHealth {
            layer: self.layer,
            dead: self.load.iter().filter(|n| **n == 0).count(),
            max_violation: load.iter().copied().fold(0.0, f64::max) - 1.0,
            effective_experts: load_entropy.exp(),
            entropy: match most > 0.0 {
                true => entropy / (copies / self.top_k as f64) / most,
                false => 1.0,
            },
            dropped: self.dropped as f64 / copies,
            top_k: self.top_k,
            load,
        }
    }
}

impl RouterHealth {
    /// The least number of [`effective_experts`](Self::effective_experts) of a router in use: a quarter of the way from the `top_k`
    /// of a router that sends every token to the same experts to the number of experts.
    pub fn least_effective_experts(&self) -> f64 {
        let (k, experts) = (self.top_k as f64, self.load.len() as f64);
        k + (experts - k) / 4.0
    }

    /// Why the router counts as collapsed, if it does: a sentence.
    pub fn collapse(&self) -> Option<String> {
        let least = self.least_effective_experts();
        let experts = self.load.len();
        if experts == self.top_k || self.effective_experts >= least {
            return None;
        }
        let layer = self
            .layer
            .map_or(String::new(), |layer| format!(" of layer {layer}"));
        Some(format!(
            "the router{layer} has collapsed: its tokens spread over {:.1} of {experts} experts (below {least:.1}), {} got none, the fullest {:.1} times its share",
            self.effective_experts,
            self.dead,
            self.max_violation + 1.0,
        ))
    }
}

/// Σ over tokens of the entropy of their probabilities, in nats, `[1]`.
fn entropy(routing: &Routing) -> Tensor<1> {
    let p = routing.probabilities.clone().detach();
    // p·ln p is 0 at p = 0.
    let log = p.clone().clamp_min(f64::from(f32::MIN_POSITIVE)).log();
    -(p * log).sum()
}
