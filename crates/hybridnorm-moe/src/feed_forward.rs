//! The sparse feed-forward layer.
//!
//! Legend: B batch · T seq · N = B·T tokens · K experts per token · R = N·K token copies · D `d_model`.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use hybridnorm_core::init::Initializer;
use hybridnorm_core::{
    Activation, ConfigError, DenseFeedForward, DenseFeedForwardConfig, FeedForward, Pass,
};
use hybridnorm_kernels::{combine, dispatch};
use serde::{Deserialize, Serialize};

use crate::experts::{Experts, gate_of};
use crate::losses::LossConfig;
use crate::model::SparseLayers;
use crate::router::{Router, RouterConfig, Routing};

/// Configuration of a model's [`SparseFeedForward`] layers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SparseConfig {
    /// Which tokens go to which experts.
    pub router: RouterConfig,
    /// Inner width of each expert.
    pub d_ff: usize,
    /// Non-linearity on the experts' gates, that of a shared one too.
    #[serde(default)]
    pub activation: Activation,
    /// Inner width of an expert that every token goes to, with weight 1; `None` for no such expert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shared_d_ff: Option<usize>,
    /// Lets no expert take more than this times its equal share of a batch's token copies; what is above is dropped, and the token
    /// goes on with what its other experts add. `None`, the default, drops nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_factor: Option<f64>,
    /// Which layers are sparse.
    #[serde(default)]
    pub layers: SparseLayers,
    /// Losses that keep the routers healthy.
    #[serde(default)]
    pub losses: LossConfig,
}

impl SparseConfig {
    /// The paper's layer in the given sizes: dropless, no shared expert, in every block.
    pub fn new(n_experts: usize, top_k: usize, d_ff: usize) -> Self {
        Self {
            router: RouterConfig::new(n_experts, top_k),
            d_ff,
            activation: Activation::default(),
            shared_d_ff: None,
            capacity_factor: None,
            layers: SparseLayers::default(),
            losses: LossConfig::default(),
        }
    }

    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.router.validate().map_err(|error| ConfigError {
            field: format!("sparse.{}", error.field),
            ..error
        })?;
        for (field, value) in [
            ("sparse.d_ff", Some(self.d_ff)),
            ("sparse.shared_d_ff", self.shared_d_ff),
        ] {
            if value.is_some_and(|value| !(1..=1 << 22).contains(&value)) {
                return Err(ConfigError::new(
                    field,
                    value.unwrap_or(0),
                    "from 1 to 4194304",
                ));
            }
        }
        gate_of(self.activation)?;
        // Far beyond any model, and small enough that no count of parameters overflows.
        const MOST: usize = 1 << 26;
        if self.router.n_experts.saturating_mul(self.d_ff) > MOST {
            let allowed = format!(
                "at most {MOST} / sparse.router.n_experts = {}",
                MOST / self.router.n_experts
            );
            return Err(ConfigError::new("sparse.d_ff", self.d_ff, allowed));
        }
        if let Some(factor) = self.capacity_factor
            && !(factor.is_finite() && factor > 0.0)
        {
            let allowed = "a finite number above 0; leave it out to drop nothing";
            return Err(ConfigError::new("sparse.capacity_factor", factor, allowed));
        }
        self.losses.validate()
    }

    /// Parameters of one layer: all of them, and those that work on any one token.
    pub fn num_params(&self, d_model: usize) -> (usize, usize) {
        let RouterConfig {
            n_experts,
            top_k,
            bias_update,
            ..
        } = self.router;
        let expert = 3 * d_model * self.d_ff;
        let bias = usize::from(bias_update.is_some()) * n_experts;
        let rest =
            d_model * n_experts + bias + self.shared_d_ff.map_or(0, |d_ff| 3 * d_model * d_ff);
        (n_experts * expert + rest, top_k * expert + rest)
    }

    /// Builds one layer; `init` is the rule for its place in the model.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(
        &self,
        d_model: usize,
        init: &Initializer,
        device: &Device,
    ) -> Result<SparseFeedForward, ConfigError> {
        self.validate()?;
        let shared = self.shared_d_ff.map(|d_ff| {
            DenseFeedForwardConfig {
                d_model,
                d_ff,
                activation: self.activation,
                bias: false,
            }
            .init(&init.at("shared"), device)
        });
        let experts = Experts::new(
            self.router.n_experts,
            d_model,
            self.d_ff,
            self.activation,
            &init.at("experts"),
            device,
        );
        Ok(SparseFeedForward {
            router: self.router.init(d_model, init, device)?,
            experts: experts?,
            shared: shared.transpose()?,
            capacity_factor: self.capacity_factor,
        })
    }
}

/// A feed-forward layer of which each token uses a few experts: `FFN(x) = Σ_k weight_k(x) · expert_k(x) (+ shared(x))`.
///
/// Token copies are sorted by expert, each expert multiplies its own rows only, and a token's results are added up with its weights:
/// the cost follows the experts in use, not their number.
#[derive(Module, Debug)]
pub struct SparseFeedForward {
    /// Chooses experts for each token.
    pub router: Router,
    /// The experts.
    pub experts: Experts,
    /// An expert that every token uses.
    pub shared: Option<DenseFeedForward>,
    #[module(skip)]
    capacity_factor: Option<f64>,
}

impl FeedForward for SparseFeedForward {
    type Report = Routing;

    #[allow(non_snake_case)]
    fn forward(&self, x_BTD: Tensor<3>, pass: &mut Pass<Routing>) -> Tensor<3> {
        let [batch, seq, d_model] = x_BTD.dims();
        let x_ND = x_BTD.clone().reshape([batch * seq, d_model]);
        let (routing, assignment) = self
            .router
            .forward(x_ND.clone(), self.capacity_factor, pass);
        let (groups, routes) = assignment.upload(routing.top_k(), &x_ND.device());
        let copies_RD = dispatch(x_ND, &routes);
        let results_RD = self.experts.forward(copies_RD, &groups, pass);
        let weights_NK = routing.weights.clone().cast(results_RD.dtype());
        let y_ND = combine(results_RD, weights_NK, &routes);
        pass.reports.push(routing);
        let y_BTD = y_ND.reshape([batch, seq, d_model]);
        match &self.shared {
            Some(shared) => {
                // In a pass of its own, lest its values be taken for those of the experts.
                let mut own = Pass::<()>::causal().with_products(pass.products());
                y_BTD + shared.forward_in(x_BTD, &mut own)
            }
            None => y_BTD,
        }
    }
}

impl SparseFeedForward {
    /// See [`Router::rebalance`].
    #[must_use]
    pub fn rebalance(mut self, load: &[u64]) -> Self {
        self.router = self.router.rebalance(load);
        self
    }
}
