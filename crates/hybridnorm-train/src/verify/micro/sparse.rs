//! The parts of a sparse layer by themselves: the losses of routers, whole layers, parameter counts.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Gradients, Tensor};
use hybridnorm_core::{DecoderConfig, FeedForward, Pass};
use hybridnorm_interop::{Array, InteropError, Layout, official};
use hybridnorm_moe::{
    LossConfig, LossConvention, ModelConfig, RouterConfig, SparseConfig, SparseFeedForward,
};
use serde::Deserialize;
use serde_json::Value;

use super::super::check::Check;
use super::super::routing::{Routed, first_flip};
use super::super::values::array_of;
use super::{Meta, Values, gradient, malformed, plain_init, setting};

fn count(meta: &Meta, entry: &str, key: &str) -> Result<usize, InteropError> {
    let number = setting(meta, entry, key).ok_or_else(|| malformed(key))?;
    Ok(number as usize)
}

/// Both losses and their gradients, from logits.
pub(super) fn losses(
    values: &Values,
    meta: &Meta,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    for variant in values.stems(".logits.0") {
        let [experts, top_k, layers] =
            ["num_experts", "top_k", "num_layers"].map(|key| count(meta, &variant, key));
        let (experts, top_k, layers) = (experts?, top_k?, layers?);
        let weight = |key: &str| setting(meta, &variant, key).unwrap_or(0.0);
        let config = LossConfig {
            convention: LossConvention::Authors,
            balance: weight("moe_loss_weight"),
            z: weight("moe_zloss_weight"),
        };
        // A router that is the identity: its logits are its input, and their gradients its input's.
        let mut router =
            RouterConfig::new(experts, top_k).init(experts, &plain_init(experts)?, device)?;
        router.linear = Linear {
            weight: Param::from_tensor(Tensor::eye(experts, device)),
            bias: None,
        };
        let mut reports = Vec::new();
        for (name, d) in [("lb_loss", "dlb"), ("z_loss", "dz")] {
            let logits = (0..layers)
                .map(|layer| values.tensor::<2>(&format!("{variant}.logits.{layer}"), device))
                .map(|logits| logits.map(Tensor::require_grad));
            let logits: Vec<Tensor<2>> = logits.collect::<Result<_, _>>()?;
            let route = |logits: &Tensor<2>| {
                let (routing, _) = router.forward(logits.clone(), None, &mut Pass::<()>::causal());
                routing
            };
            reports = logits.iter().map(route).collect();
            let auxiliary = config.of(&reports);
            let loss = match name {
                "lb_loss" => auxiliary.balance,
                _ => auxiliary.z,
            };
            let Some(loss) = loss else { continue };
            let grads = loss.backward();
            checks.push(values.compare(&format!("{variant}.{name}"), array_of(loss))?);
            for (layer, logits) in logits.iter().enumerate() {
                let name = format!("{variant}.{d}.{layer}");
                checks.push(values.compare(&name, gradient(logits, &grads))?);
            }
        }
        for (layer, routing) in reports.iter().enumerate() {
            let name = format!("{variant}.tokens_per_expert.{layer}");
            let load = Routed::new(routing).load;
            let expected = values.0.array(&name)?;
            let at = format!("{:?}, {:?} expected", load.values, expected.values);
            checks.push(Check::exact(name, load == expected, at));
        }
    }
    Ok(())
}

/// Whole layers, forward and backward.
pub(super) fn layers(
    values: &Values,
    meta: &Meta,
    device: &Device,
    checks: &mut Vec<Check>,
) -> Result<(), InteropError> {
    for stem in values.stems(".router") {
        let layer = read_layer(values, meta, &stem, device)?;
        let input = values.tensor::<3>(&format!("{stem}.x"), device)?;
        let input = input.require_grad();
        let mut pass = Pass::causal();
        let y = layer.forward(input.clone(), &mut pass);
        let routed = pass.reports.first().map(Routed::new);
        let routed = routed.ok_or_else(|| malformed("routing"))?;
        let dy = values.tensor(&format!("{stem}.dy"), device)?;
        let grads = (y.clone() * dy).sum().backward();
        let logits = values.compare(&format!("{stem}.router_logits"), routed.logits.clone())?;
        checks.push(logits);
        checks.push(values.compare(&format!("{stem}.expert_weights"), routed.weights.clone())?);
        let name = format!("{stem}.expert_indices");
        let expected = values.0.array(&name)?;
        let flip = first_flip(0, &routed.logits, &expected, &routed.chosen);
        let at = flip.map_or(String::new(), |flip| flip.to_string());
        checks.push(Check::exact(name, expected == routed.chosen, at));
        checks.push(values.compare(&format!("{stem}.y"), array_of(y))?);
        checks.push(values.compare(&format!("{stem}.dx"), gradient(&input, &grads))?);
        for (name, gradient) in gradients(&layer, &grads)? {
            checks.push(values.compare(&format!("{stem}.d_{name}"), gradient)?);
        }
    }
    Ok(())
}

/// The parameters: their paths, and the names of their values.
const PARAMETERS: [(&str, &str); 4] = [
    ("router.linear.weight", "router"),
    ("experts.gate", "w1"),
    ("experts.up", "v1"),
    ("experts.down", "w2"),
];

/// Where the authors' files hold the parameter at `path` of a sparse layer.
fn layout(path: &str, shape: &[usize]) -> Result<Layout, InteropError> {
    let path = format!("blocks.0.feed_forward.{path}");
    let layout = official::names().layout(&path, shape);
    layout.ok_or_else(|| malformed("a sparse layer's parameter"))
}

fn read_layer(
    values: &Values,
    meta: &Meta,
    stem: &str,
    device: &Device,
) -> Result<SparseFeedForward, InteropError> {
    let entry = format!("layer.{stem}");
    let of = |key: &str| count(meta, &entry, key);
    let (experts, top_k) = (of("num_experts")?, of("top_k")?);
    let (d_model, d_ff) = (of("d_model")?, of("ffn_hidden")?);
    let renormalize = match setting(meta, &entry, "normalize_topk_p") {
        None | Some(0.0) => false,
        Some(1.0) => true,
        Some(order) => {
            return Err(InteropError::Unsupported {
                field: format!("{entry}.normalize_topk_p"),
                value: order.to_string(),
                reason: "weights are divided by their sum (1) or not at all".to_string(),
            });
        }
    };
    let config = SparseConfig {
        router: RouterConfig {
            renormalize,
            ..RouterConfig::new(experts, top_k)
        },
        ..SparseConfig::new(experts, top_k, d_ff)
    };
    let mut layer = config.init(d_model, &plain_init(d_model)?, device)?;
    let read = |index: usize, shape: &[usize]| -> Result<Array, InteropError> {
        let (path, name) = PARAMETERS[index];
        let name = format!("{stem}.{name}");
        let joined =
            layout(path, shape)?.join(|_| values.0.array(&name).map_err(|e| e.to_string()));
        joined.map_err(|problem| InteropError::Mismatch(vec![problem]))
    };
    let matrices = |index: usize, shape: [usize; 3]| -> Result<Param<Tensor<3>>, InteropError> {
        let data = read(index, &shape)?.to_f32();
        Ok(Param::from_tensor(Tensor::from_data(data, device)))
    };
    let router = read(0, &[d_model, experts])?.to_f32();
    layer.router.linear.weight = Param::from_tensor(Tensor::from_data(router, device));
    layer.experts.gate = matrices(1, [experts, d_model, d_ff])?;
    layer.experts.up = matrices(2, [experts, d_model, d_ff])?;
    layer.experts.down = matrices(3, [experts, d_ff, d_model])?;
    Ok(layer)
}

/// The gradients, under the names of their parameters and in the authors' orientation.
fn gradients(
    layer: &SparseFeedForward,
    grads: &Gradients,
) -> Result<Vec<(&'static str, Array)>, InteropError> {
    struct Collector<'a> {
        grads: &'a Gradients,
        found: Vec<Array>,
    }
    impl ModuleVisitor for Collector<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(gradient(&param.val(), self.grads));
        }
    }
    let mut collector = Collector {
        grads,
        found: Vec::new(),
    };
    layer.visit(&mut collector);
    let named = PARAMETERS.iter().zip(collector.found);
    named
        .map(|((path, name), gradient)| {
            let mut parts = layout(path, &gradient.shape)?.split(&gradient);
            Ok((*name, parts.remove(0).1))
        })
        .collect()
}

/// `full_size_1b_7b.json`.
#[derive(Deserialize)]
pub(super) struct FullSize {
    n_params: usize,
    n_active_params: usize,
    expert_ffn_hidden: usize,
    num_experts: usize,
    top_k: usize,
    #[serde(default)]
    config: Option<Value>,
}

/// Parameter counts of the published sparse model, without building it.
pub(super) fn counts(full: &FullSize, checks: &mut Vec<Check>) -> Result<(), InteropError> {
    let mut presets = hybridnorm_moe::PRESETS.iter();
    let preset = presets.find(|preset| preset.name == "moe-1b-7b");
    let preset = preset
        .ok_or_else(|| malformed("preset moe-1b-7b"))?
        .config();
    // The file counts the released configuration, which is HybridNorm without the Pre-Norm block of HybridNorm*.
    let released = ModelConfig {
        decoder: DecoderConfig {
            placement: "hybrid".parse()?,
            ..preset.decoder
        },
        ..preset
    };
    let model = match &full.config {
        Some(config) => serde_json::from_value::<official::OfficialConfig>(config.clone())
            .map_err(|_| malformed("config"))?
            .to_model()?,
        None => released,
    };
    let sizes = model.sparse.as_ref().map(|sparse| {
        let router = &sparse.router;
        (sparse.d_ff, router.n_experts, router.top_k)
    });
    let expected = (full.expert_ffn_hidden, full.num_experts, full.top_k);
    let at = format!("{sizes:?}, {expected:?} expected");
    checks.push(Check::exact("1b-7b experts", sizes == Some(expected), at));
    let counts = model.num_params()?;
    let expected = (full.n_params, full.n_active_params);
    let at = format!("{counts:?}, {expected:?} expected");
    checks.push(Check::exact(
        "parameter count 1b-7b, all and active",
        counts == expected,
        at,
    ));
    Ok(())
}
