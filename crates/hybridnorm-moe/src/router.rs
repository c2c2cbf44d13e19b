//! The router: which experts a token goes to, and with what weight.
//!
//! Legend: N tokens · E experts · K experts per token · D `d_model`.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, TensorReadError, activation};
use hybridnorm_core::init::{Initializer, Role};
use hybridnorm_core::precision::at_least_f32;
use hybridnorm_core::trace::Op;
use hybridnorm_core::{ConfigError, Pass};
use hybridnorm_kernels::top_k;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::assignment::Assignment;

/// How logits become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreFunction {
    /// Softmax over all experts, before the best are chosen: the paper's, OLMoE's, Mixtral's and Qwen's.
    #[default]
    Softmax,
    /// A sigmoid for each expert by itself: DeepSeek-V3's (arXiv 2412.19437).
    Sigmoid,
}

/// Configuration of a [`Router`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// Experts to choose from (E).
    pub n_experts: usize,
    /// Experts for each token (K).
    pub top_k: usize,
    /// How logits become scores.
    #[serde(default)]
    pub score: ScoreFunction,
    /// Divides the weights of a token's experts by their sum. The authors' models and OLMoE do not, Mixtral does.
    #[serde(default)]
    pub renormalize: bool,
    /// Balances load without a loss: a bias on each expert's score, for the choice only, is moved by this much after each step,
    /// up where an expert had less than its share (arXiv 2408.15664; DeepSeek-V3: 0.001).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias_update: Option<f64>,
    /// In passes with noise, multiplies the router's input by uniform numbers from 1 − this to 1 + this (Switch, arXiv 2101.03961).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
}

impl RouterConfig {
    /// The paper's router: softmax over all experts, weights as they are.
    pub fn new(n_experts: usize, top_k: usize) -> Self {
        Self {
            n_experts,
            top_k,
            score: ScoreFunction::default(),
            renormalize: false,
            bias_update: None,
            jitter: None,
        }
    }

    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=1 << 16).contains(&self.n_experts) {
            return Err(ConfigError::new(
                "router.n_experts",
                self.n_experts,
                "from 1 to 65536",
            ));
        }
        if !(1..=self.n_experts).contains(&self.top_k) {
            let allowed = format!("from 1 to router.n_experts = {}", self.n_experts);
            return Err(ConfigError::new("router.top_k", self.top_k, allowed));
        }
        for (field, value, most) in [
            ("router.bias_update", self.bias_update, f64::MAX),
            ("router.jitter", self.jitter, 1.0 - f64::EPSILON),
        ] {
            if let Some(value) = value
                && !(value > 0.0 && value <= most)
            {
                let allowed = match most < 1.0 {
                    true => "above 0 and below 1; leave it out for none",
                    false => "a finite number above 0; leave it out for none",
                };
                return Err(ConfigError::new(field, value, allowed));
            }
        }
        Ok(())
    }

    /// Builds the router.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(
        &self,
        d_model: usize,
        init: &Initializer,
        device: &Device,
    ) -> Result<Router, ConfigError> {
        self.validate()?;
        let columns = [(Role::Router, "router", self.n_experts)];
        let bias =
            || Param::from_tensor(Tensor::zeros([self.n_experts], device)).set_require_grad(false);
        Ok(Router {
            linear: init.linear(d_model, &columns, false, device),
            selection_bias: self.bias_update.map(|_| bias()),
            config: self.clone(),
        })
    }
}

/// Scores every expert for every token and chooses the best.
#[derive(Module, Debug)]
pub struct Router {
    /// `[D, E]`
    pub linear: Linear,
    /// Added to the scores for the choice only, `[E]`; no gradient reaches it, [`rebalance`](Self::rebalance) moves it.
    pub selection_bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: RouterConfig,
}

/// What one sparse layer did with the tokens of a forward pass.
#[derive(Debug, Clone)]
pub struct Routing {
    /// The block, from 0; `None` outside a decoder.
    pub layer: Option<usize>,
    /// `[N, E]`, in f32 or better, with gradient.
    pub logits: Tensor<2>,
    /// Scores of all experts that sum to one for each token, `[N, E]`, with gradient: what balancing losses take.
    pub probabilities: Tensor<2>,
    /// The experts of each token, best first, `[N, K]`.
    pub chosen: Tensor<2, Int>,
    /// Their weights, `[N, K]`, with gradient.
    pub weights: Tensor<2>,
    /// Tokens that chose each expert, `[E]`; they sum to N·K.
    pub load: Vec<usize>,
    /// Token copies beyond an expert's capacity; 0 in a dropless layer.
    pub dropped: usize,
    /// Why the experts above are not to be relied on.
    pub error: Option<RoutingError>,
}

/// A routing that went wrong. The forward pass goes on, its output is worthless.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RoutingError {
    /// The device failed when the chosen experts were read.
    #[error("the chosen experts cannot be read from the device: {0}")]
    Device(String),
    /// NaN among the scores of a token, or infinity among its logits.
    #[error("the router's logits of token {token} are not finite{}", in_layer(.layer))]
    NonFinite {
        /// The block, if it is known.
        layer: Option<usize>,
        /// The first such token, counted through the batch.
        token: usize,
    },
}

fn in_layer(layer: &Option<usize>) -> String {
    layer.map_or(String::new(), |layer| format!(" in layer {layer}"))
}

impl Routing {
    /// Tokens routed (N).
    pub fn tokens(&self) -> usize {
        self.chosen.dims()[0]
    }

    /// Experts for each token (K).
    pub fn top_k(&self) -> usize {
        self.chosen.dims()[1]
    }

    /// Experts (E).
    pub fn n_experts(&self) -> usize {
        self.load.len()
    }

    /// Reads the logits back and says whether they are finite; for when a loss turns out not to be.
    ///
    /// # Errors
    /// Names the layer and the token.
    pub fn check(&self) -> Result<(), RoutingError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let logits = self.logits.clone().detach();
        let logits: Vec<f32> = logits.try_into_vec_as().map_err(unreadable)?;
        match logits.iter().position(|logit| !logit.is_finite()) {
            Some(at) => Err(RoutingError::NonFinite {
                layer: self.layer,
                token: at / self.n_experts(),
            }),
            None => Ok(()),
        }
    }
}

fn unreadable(error: TensorReadError) -> RoutingError {
    RoutingError::Device(error.to_string())
}

impl Router {
    /// The configuration it was built from.
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// Chooses experts for each token, and sorts the tokens' copies by them.
    ///
    /// Equal scores go to the lower expert, on every device. Scores that are NaN go to the first experts, and their weights are NaN.
    ///
    /// # Shapes
    /// - `x_ND`
    #[allow(non_snake_case)]
    pub fn forward<R>(
        &self,
        x_ND: Tensor<2>,
        capacity_factor: Option<f64>,
        pass: &mut Pass<R>,
    ) -> (Routing, Assignment) {
        let RouterConfig {
            n_experts,
            top_k: k,
            ..
        } = self.config;
        let [tokens, _] = x_ND.dims();
        let x_ND = match (self.config.jitter, pass.noise()) {
            (Some(jitter), Some(seed)) => x_ND.clone() * noise(&x_ND, jitter, seed, pass.layer()),
            _ => x_ND,
        };
        let logits_NE = at_least_f32(self.linear.forward(x_ND));
        let logits_NE = pass.keep(Op::RouterLogits, logits_NE);
        let scores_NE = match self.config.score {
            ScoreFunction::Softmax => activation::softmax(logits_NE.clone(), 1),
            ScoreFunction::Sigmoid => activation::sigmoid(logits_NE.clone()),
        };
        let probabilities = match self.config.score {
            ScoreFunction::Softmax => scores_NE.clone(),
            ScoreFunction::Sigmoid => scores_NE.clone() / scores_NE.clone().sum_dim(1),
        };
        let ranked = match &self.selection_bias {
            Some(bias) => {
                scores_NE.clone().detach() + at_least_f32(bias.val()).detach().unsqueeze()
            }
            None => scores_NE.clone().detach(),
        };
        let mut chosen_NK = top_k(ranked, k);
        let (chosen, error) = read_back(chosen_NK.clone(), n_experts, pass.layer());
        if error.is_some() {
            let data = chosen
                .iter()
                .map(|expert| *expert as i32)
                .collect::<Vec<_>>();
            let device = chosen_NK.device();
            chosen_NK = Tensor::from_data(TensorData::new(data, [tokens, k]), &device);
        }
        let mut weights_NK = scores_NE.gather(1, chosen_NK.clone());
        if self.config.renormalize {
            weights_NK = weights_NK.clone() / weights_NK.sum_dim(1);
        }
        let weights_NK = pass.keep(Op::ExpertWeights, weights_NK);
        let capacity = capacity_factor
            .map(|factor| (factor * (tokens * k) as f64 / n_experts as f64).ceil() as usize);
        let assignment = Assignment::new(&chosen, k, n_experts, capacity);
        let routing = Routing {
            layer: pass.layer(),
            logits: logits_NE,
            probabilities,
            chosen: chosen_NK,
            weights: weights_NK,
            load: assignment.load.clone(),
            dropped: assignment.dropped(),
            error,
        };
        (routing, assignment)
    }

    /// Moves the selection bias by `bias_update`: up for each expert that got less than its share of `load`, down for those that
    /// got more (arXiv 2408.15664, algorithm 1). Does nothing where the router has none.
    ///
    /// `load` counts the tokens of each expert over a whole optimiser step.
    #[must_use]
    pub fn rebalance(mut self, load: &[u64]) -> Self {
        let Some((rate, bias)) = self.config.bias_update.zip(self.selection_bias.take()) else {
            return self;
        };
        let total: u64 = load.iter().sum();
        let n = load.len() as u64;
        let step = load.iter().map(|mine| match (mine * n).cmp(&total) {
            std::cmp::Ordering::Less => rate as f32,
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => -rate as f32,
        });
        let step = TensorData::new(step.collect::<Vec<_>>(), [load.len()]);
        self.selection_bias = Some(bias.map(|bias| {
            let step = Tensor::from_data(step, (&bias.device(), bias.dtype()));
            (bias + step).detach()
        }));
        self
    }
}

/// The chosen experts on the host, each below `n_experts` in any case.
fn read_back(
    chosen: Tensor<2, Int>,
    n_experts: usize,
    layer: Option<usize>,
) -> (Vec<u32>, Option<RoutingError>) {
    let [tokens, k] = chosen.dims();
    let mut read: Vec<i64> = match chosen.try_into_vec_as() {
        Ok(read) => read,
        Err(error) => {
            let first = (0..tokens * k).map(|copy| (copy % k) as u32).collect();
            return (first, Some(unreadable(error)));
        }
    };
    // A device may answer anything for a token whose scores are NaN.
    let valid = |expert: &i64| (0..n_experts as i64).contains(expert);
    let wrong = read
        .chunks(k)
        .position(|experts| !experts.iter().all(valid));
    for experts in read.chunks_mut(k) {
        if !experts.iter().all(valid) {
            experts
                .iter_mut()
                .zip(0..)
                .for_each(|(expert, first)| *expert = first);
        }
    }
    let chosen = read.iter().map(|expert| *expert as u32).collect();
    (
        chosen,
        wrong.map(|token| RoutingError::NonFinite { layer, token }),
    )
}

/// Uniform numbers from 1 − `jitter` to 1 + `jitter`, drawn on the host: the same on every device and after every resume.
fn noise(x: &Tensor<2>, jitter: f64, seed: u64, layer: Option<usize>) -> Tensor<2> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(layer.map_or(0, |layer| layer as u64 + 1));
    let shape = x.dims();
    let values: Vec<f32> = (0..shape[0] * shape[1])
        .map(|_| (1.0 + jitter * (2.0 * rng.random::<f64>() - 1.0)) as f32)
        .collect();
    let dtype: DType = x.dtype();
    Tensor::from_data(TensorData::new(values, shape), (&x.device(), dtype))
}
