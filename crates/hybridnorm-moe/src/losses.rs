//! Losses that keep routers healthy: load balancing and router z-loss, in the two conventions in use.
//!
//! With L sparse layers, N tokens, E experts, K experts per token, `n[l,e]` the tokens of layer l that chose expert e, `p[l,t,e]` the
//! probability of expert e for token t, and `z[l,t] = logsumexp(logits[l,t])`:
//!
//! | convention | load balancing | router z-loss | source |
//! |---|---|---|---|
//! | `authors` | `E/(L·N·K) · Σ_l Σ_e n[l,e] · mean_t p[l,t,e]` | `1/(L·N·K) · Σ_l Σ_t z²` | paper.md §3.8; megablocks, branch `olmoe` |
//! | `hugging-face` | `E · Σ_e (Σ_l n[l,e]/(L·N)) · (mean_{l,t} p[l,t,e])` | `1/(L·N) · Σ_l Σ_t z²` | transformers, `load_balancing_loss_func`; ST-MoE, arXiv 2202.08906 |
//!
//! Uniform routing gives a balance of 1 in the first and K in the second. `n` is a count and has no gradient. Both are over the tokens
//! of one forward pass: with accumulation they are averaged over the micro-batches, as the authors do.

use burn::tensor::{Tensor, TensorData};
use hybridnorm_core::ConfigError;
use serde::{Deserialize, Serialize};

use crate::router::Routing;

/// What the losses are divided by, and whether layers are pooled first: see the [module's table](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossConvention {
    /// The authors' and megablocks'.
    #[default]
    Authors,
    /// Hugging Face transformers'.
    HuggingFace,
}

/// Weights of the auxiliary losses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossConfig {
    /// Divisors.
    pub convention: LossConvention,
    /// Weight of load balancing; 0 leaves it out.
    pub balance: f64,
    /// Weight of the router z-loss; 0 leaves it out.
    pub z: f64,
}

impl Default for LossConfig {
    /// The paper's (Table 10).
    fn default() -> Self {
        Self {
            convention: LossConvention::Authors,
            balance: 0.01,
            z: 0.001,
        }
    }
}

impl LossConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("sparse.losses.balance", self.balance),
            ("sparse.losses.z", self.z),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(ConfigError::new(
                    field,
                    value,
                    "a finite number of at least 0",
                ));
            }
        }
        Ok(())
    }

    /// The weighted losses of one forward pass, from what its sparse layers reported.
    ///
    /// # Panics
    /// When the layers have different numbers of tokens or experts, which no pass of one decoder gives.
    pub fn of(&self, reports: &[Routing]) -> Auxiliary {
        let weighted = |weight: f64, loss: fn(&[Routing], LossConvention) -> Tensor<1>| {
            (weight != 0.0 && !reports.is_empty()).then(|| loss(reports, self.convention) * weight)
        };
        Auxiliary {
            balance: weighted(self.balance, load_balancing),
            z: weighted(self.z, z_loss),
        }
    }

    /// What one layer adds to the losses [`of`](Self::of) `all`: the parts of all layers sum up to those, values and gradients, so that
    /// layers can be differentiated one at a time. `routing` is that layer's entry of `all`, or the same computed again.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    pub fn part_of(&self, routing: &Routing, all: &[Routing]) -> Auxiliary {
        let weighted = |weight: f64, part: Part| {
            (weight != 0.0).then(|| part(routing, all, self.convention) * weight)
        };
        Auxiliary {
            balance: weighted(self.balance, load_balancing_part),
            z: weighted(self.z, z_loss_part),
        }
    }
}

/// The auxiliary losses of one forward pass, times their weights, each `[1]`; `None` where there is nothing to add.
#[derive(Debug, Clone)]
pub struct Auxiliary {
    /// Load balancing.
    pub balance: Option<Tensor<1>>,
    /// Router z-loss.
    pub z: Option<Tensor<1>>,
}

impl Auxiliary {
    /// `loss` plus both.
    pub fn add_to(&self, loss: Tensor<1>) -> Tensor<1> {
        let auxiliary = [&self.balance, &self.z].into_iter().flatten();
        auxiliary.fold(loss, |sum, term| sum + term.clone())
    }
}

/// Load balancing without its weight, `[1]`.
///
/// # Panics
/// As [`LossConfig::of`]; and for no layers.
pub fn load_balancing(reports: &[Routing], convention: LossConvention) -> Tensor<1> {
    sum_of_parts(reports, convention, load_balancing_part)
}

/// Router z-loss without its weight, `[1]`; right for logits of any size.
///
/// # Panics
/// As [`LossConfig::of`]; and for no layers.
pub fn z_loss(reports: &[Routing], convention: LossConvention) -> Tensor<1> {
    sum_of_parts(reports, convention, z_loss_part)
}

type Part = fn(&Routing, &[Routing], LossConvention) -> Tensor<1>;

fn sum_of_parts(reports: &[Routing], convention: LossConvention, part: Part) -> Tensor<1> {
    let parts = reports.iter();
    let parts = parts.map(|routing| part(routing, reports, convention));
    Tensor::cat(parts.collect(), 0).sum()
}

/// What `routing`, one of the layers of `all`, adds to load balancing.
fn load_balancing_part(
    routing: &Routing,
    all: &[Routing],
    convention: LossConvention,
) -> Tensor<1> {
    let (layers, tokens, experts) = sizes(all);
    let (load, factor): (Vec<f64>, f64) = match convention {
        LossConvention::Authors => {
            let load = routing.load.iter().map(|n| *n as f64).collect();
            let factor = experts as f64 / (layers * tokens * routing.top_k()) as f64;
            (load, factor)
        }
        LossConvention::HuggingFace => {
            let load = |e: usize| all.iter().map(|other| other.load[e]).sum::<usize>() as f64;
            let factor = experts as f64 / (layers * tokens) as f64 / layers as f64;
            ((0..experts).map(load).collect(), factor)
        }
    };
    let share = mean_probabilities(routing);
    let load = load.into_iter().map(|n| n * factor).collect();
    let load = TensorData::new(load, [experts]);
    (Tensor::<1>::from_data(load, (&share.device(), share.dtype())) * share).sum()
}

/// What `routing`, one of the layers of `all`, adds to the router z-loss.
fn z_loss_part(routing: &Routing, all: &[Routing], convention: LossConvention) -> Tensor<1> {
    let (layers, tokens, _) = sizes(all);
    let divisor = match convention {
        LossConvention::Authors => layers * tokens * routing.top_k(),
        LossConvention::HuggingFace => layers * tokens,
    };
    let logits = routing.logits.clone();
    let max = logits.clone().detach().max_dim(1);
    let lse = (logits - max.clone()).exp().sum_dim(1).log() + max;
    lse.square().sum() / divisor as f64
}

/// `[E]`
fn mean_probabilities(routing: &Routing) -> Tensor<1> {
    let probabilities = routing.probabilities.clone();
    probabilities.mean_dim(0).reshape([routing.n_experts()])
}

/// Layers, tokens and experts.
fn sizes(reports: &[Routing]) -> (usize, usize, usize) {
    let (tokens, experts) = (reports[0].tokens(), reports[0].n_experts());
    let same = |routing: &Routing| (routing.tokens(), routing.n_experts()) == (tokens, experts);
    assert!(
        reports.iter().all(same),
        "the layers differ in tokens or experts"
    );
    (reports.len(), tokens, experts)
}
