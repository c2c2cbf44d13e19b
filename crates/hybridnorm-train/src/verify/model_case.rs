//! A whole model: `dense_*`, `moe_*` and `hf_*` cases. Logits, hidden states, routing, losses, every gradient, greedy tokens.

use burn::module::Module;
use burn::tensor::Device;
use hybridnorm_core::Decoder;
use hybridnorm_interop::{
    Array, InteropError, NameMap, Pretrained, TensorFile, hugging_face, load, official,
};
use hybridnorm_moe::{FeedForwardLayer, LossConfig, LossConvention, ModelConfig};

use super::case::{CaseDir, Greedy, HuggingFaceCase, OfficialCase, Trajectory};
use super::check::Check;
use super::expected::{Expected, paired};
use super::record::{Losses, Record, Work};
use super::routing::{Routed, first_flip};
use crate::data::Tokenizer;
use crate::generate;
use crate::import::run_of;
use crate::run::RunConfig;

/// Where a case's parameters lie.
enum Weights {
    /// In one file, under the authors' names.
    Official(TensorFile),
    /// In a folder of transformers.
    Published(Box<Pretrained>),
}

/// A case, read.
pub struct ModelCase {
    config: ModelConfig,
    n_params: usize,
    weights: Weights,
    expected: Expected,
    greedy: Option<Greedy>,
    trajectory: Option<Trajectory>,
    work: Work,
    /// Checks that need no device.
    checks: Vec<Check>,
}

impl ModelCase {
    /// Reads a case of the authors' code.
    ///
    /// # Errors
    /// When it cannot be read, or needs what is not implemented.
    pub fn official(dir: &CaseDir) -> Result<Self, InteropError> {
        let case: OfficialCase = dir.json("case.json")?;
        let inputs = dir.tensors("inputs.safetensors")?;
        let trajectory: Option<Trajectory> = match dir.has("trajectory.json") {
            true => Some(dir.json("trajectory.json")?),
            false => None,
        };
        let steps = trajectory
            .as_ref()
            .map(|trajectory| trajectory.work(inputs.array("batches")?));
        let config = case.model_config.to_model()?;
        let weights = dir.tensors("weights.safetensors")?;
        refuse_biased_experts(&config, &weights)?;
        let mut losses = paired(
            |name| case.losses.get(name).copied().flatten(),
            [
                ("loss", "loss_mean"),
                ("loss_train", "loss_train"),
                ("lb_loss", "lb_loss"),
                ("moe_z_loss", "moe_z_loss"),
            ],
        );
        let parts = ["loss", "lb_loss", "moe_z_loss"].map(|name| losses.get(name).copied());
        let total = parts.into_iter().flatten();
        let total = total.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        losses.insert("total_loss", total);
        Ok(Self {
            n_params: case.derived.n_params,
            expected: Expected {
                file: dir.tensors("expected.safetensors")?,
                precision: case.precision_f32_vs_f64,
                losses,
            },
            greedy: case.greedy,
            work: Work {
                tokens: inputs.array("input_ids")?,
                auxiliary: auxiliary(&config),
                names: official::names(),
                trajectory: steps.transpose()?,
            },
            checks: vec![layout(&config)],
            config,
            weights: Weights::Official(weights),
            trajectory,
        })
    }

    /// Reads a case of Hugging Face transformers.
    ///
    /// # Errors
    /// When it cannot be read, or needs what is not implemented.
    pub fn hugging_face(dir: &CaseDir) -> Result<Self, InteropError> {
        let folder = Pretrained::open(dir.0.join("model"))?;
        let (model, names) = (folder.config().clone(), folder.names().clone());
        let case: HuggingFaceCase = dir.json("case.json")?;
        let mut checks = vec![layout(&model)];
        if dir.has("config_legacy.json") {
            let legacy = hugging_face::import(&dir.json("config_legacy.json")?);
            let (same, at) = match legacy {
                Ok(legacy) => (legacy.model == model, String::new()),
                Err(error) => (false, error.to_string()),
            };
            checks.push(Check::exact("config_legacy.json means the same", same, at));
        }
        let of = |name: &str| {
            let loss = case.losses.get(name).copied().flatten();
            loss.or_else(|| case.moe.get(name)?.as_f64())
        };
        let known = [
            ("loss", "loss_ce"),
            ("total_loss", "total_loss"),
            ("aux_loss", "aux_loss"),
        ];
        Ok(Self {
            n_params: case.n_params,
            weights: Weights::Published(Box::new(folder)),
            expected: Expected {
                file: dir.tensors("expected.safetensors")?,
                losses: paired(of, known),
                precision: case.precision_f32_vs_f64,
            },
            greedy: case.greedy,
            trajectory: None,
            work: Work {
                tokens: dir.tensors("inputs.safetensors")?.array("input_ids")?,
                auxiliary: auxiliary(&model),
                names,
                trajectory: None,
            },
            config: model,
            checks,
        })
    }

    /// What the case computes.
    pub fn work(&self) -> &Work {
        &self.work
    }

    fn names(&self) -> &NameMap {
        &self.work.names
    }

    /// The case's model.
    ///
    /// # Errors
    /// When its weights do not fit.
    pub fn model(&self, device: &Device) -> Result<Decoder<FeedForwardLayer>, InteropError> {
        match &self.weights {
            Weights::Official(file) => load(self.config.blank(device)?, file, self.names()),
            Weights::Published(folder) => folder.load(device),
        }
    }

    /// What a device computed, against what the reference computed.
    ///
    /// # Errors
    /// When the case lacks a tensor.
    pub fn compare(
        &self,
        found: &Record,
        model: &Decoder<FeedForwardLayer>,
    ) -> Result<Vec<Check>, InteropError> {
        let (built, expected) = (model.num_params(), self.n_params);
        let mut checks = vec![Check::exact(
            "parameter count",
            self.config.num_params()?.0 == expected && built == expected,
            format!("{built} built, {expected} expected"),
        )];
        for (name, value) in found.named() {
            checks.push(self.expected.compare(&name, value)?);
        }
        self.routing(found, &mut checks)?;
        if let Some(losses) = &found.losses {
            self.losses(losses, &mut checks)?;
            self.gradients(found, &mut checks)?;
        }
        if let Some(greedy) = &self.greedy {
            let width = self.config.decoder.padded_vocab_size;
            checks.extend(decode(&model.valid(), greedy, width));
        }
        if let Some(trajectory) = &self.trajectory {
            checks.extend(trajectory.compare(found, model, self.names()));
        }
        checks.extend(self.checks.iter().cloned());
        Ok(checks)
    }

    /// Logits, probabilities, experts, their weights and load, router by router.
    fn routing(&self, found: &Record, checks: &mut Vec<Check>) -> Result<(), InteropError> {
        let values = self.expected.file.names();
        let there = values
            .iter()
            .filter(|name| name.starts_with("router_logits."));
        let (there, routers) = (there.count(), found.routing.len());
        let at = format!("{routers} found, {there} expected");
        checks.push(Check::exact("number of routers", there == routers, at));
        // Routers are numbered by their blocks; where those are no names of the file, one after the other.
        let name = |layer: usize| format!("router_logits.{layer}");
        let mut routed = found.routing.iter();
        let by_block = routed.all(|routed| self.expected.has(&name(routed.layer)));
        for (index, routed) in found.routing.iter().enumerate() {
            let number = if by_block { routed.layer } else { index };
            if self.expected.has(&name(number)) {
                self.router(number, routed, checks)?;
            }
        }
        Ok(())
    }

    fn router(
        &self,
        number: usize,
        routed: &Routed,
        checks: &mut Vec<Check>,
    ) -> Result<(), InteropError> {
        let logits = format!("router_logits.{number}");
        checks.push(self.expected.compare(&logits, Some(&routed.logits))?);
        // A softmax moves by at most half of what its logits move: |dpᵢ| ≤ 2·pᵢ·(1 − pᵢ)·max|dl|. So do weights over chosen experts.
        let own = self.expected.listed(&logits).map(|error| error / 2.0);
        for (value, found) in [
            ("router_probs", &routed.probabilities),
            ("expert_weights", &routed.weights),
        ] {
            let name = format!("{value}.{number}");
            if self.expected.has(&name) {
                let check = self.expected.compare_within(&name, Some(found), own);
                checks.push(check?);
            }
        }
        let name = format!("expert_indices.{number}");
        if self.expected.has(&name) {
            let expected = self.expected.file.array(&name)?;
            let logits = self.expected.file.array(&logits)?;
            let flip = first_flip(routed.layer, &logits, &expected, &routed.chosen);
            let at = flip.map_or(String::new(), |flip| flip.to_string());
            checks.push(Check::exact(name, expected == routed.chosen, at));
        }
        let name = format!("tokens_per_expert.{number}");
        if self.expected.has(&name) {
            let expected = self.expected.file.array(&name)?;
            let at = format!("{:?}", routed.load.values);
            checks.push(Check::exact(name, expected == routed.load, at));
        }
        Ok(())
    }

    fn losses(&self, losses: &Losses, checks: &mut Vec<Check>) -> Result<(), InteropError> {
        let weight = self.work.auxiliary.balance;
        let found = [
            ("loss", losses.mean),
            ("loss_train", losses.train),
            ("lb_loss", losses.balance.unwrap_or(0.0)),
            ("moe_z_loss", losses.z.unwrap_or(0.0)),
            ("total_loss", losses.mean + losses.auxiliary()),
        ];
        // transformers reports it without its weight.
        let unweighted = losses.balance.map(|loss| ("aux_loss", loss / weight));
        for (name, loss) in found.into_iter().chain(unweighted) {
            if name == "loss" || self.expected.has(name) {
                let loss = Array {
                    shape: vec![1],
                    values: vec![loss],
                };
                checks.push(self.expected.compare(name, Some(&loss))?);
            }
        }
        Ok(())
    }

    fn gradients(&self, found: &Record, checks: &mut Vec<Check>) -> Result<(), InteropError> {
        let name = |path: &str| format!("grad.{path}");
        for (path, grad) in &found.gradients {
            checks.push(self.expected.compare(&name(path), grad.as_ref())?);
        }
        let compared: std::collections::BTreeSet<String> =
            found.gradients.iter().map(|(path, _)| name(path)).collect();
        let missing: Vec<String> = self
            .expected
            .file
            .names()
            .into_iter()
            .filter(|name| name.starts_with("grad.") && !compared.contains(name))
            .collect();
        checks.push(Check::exact(
            "every gradient is compared",
            missing.is_empty(),
            missing.join(", "),
        ));
        Ok(())
    }
}

/// The losses that a model's routers add; none where there are no routers.
fn auxiliary(config: &ModelConfig) -> LossConfig {
    let none = LossConfig {
        convention: LossConvention::default(),
        balance: 0.0,
        z: 0.0,
    };
    let sparse = config.sparse.as_ref();
    sparse.map_or(none, |sparse| sparse.losses.clone())
}

/// megablocks adds a bias behind its experts where the whole model has biases.
fn refuse_biased_experts(config: &ModelConfig, weights: &TensorFile) -> Result<(), InteropError> {
    let names = weights.names();
    let mut names = names.iter();
    let bias = names.find(|name| name.contains(".ffn.") && name.ends_with("bias"));
    match bias.filter(|_| config.sparse.is_some()) {
        None => Ok(()),
        Some(name) => Err(InteropError::Unsupported {
            field: "include_bias".to_string(),
            value: "true".to_string(),
            reason: format!("experts have no biases here (\"{name}\")"),
        }),
    }
}

/// The configuration survives a round trip through the file format of runs.
fn layout(config: &ModelConfig) -> Check {
    let run = run_of(config, Tokenizer::Byte.name());
    let again = toml::to_string(&run).map(|text| toml::from_str::<RunConfig>(&text));
    let same = matches!(again, Ok(Ok(again)) if again.model_config() == *config);
    Check::exact("configuration round trip", same, "")
}

/// Greedy tokens with and without the cache, over the full width of the logits.
fn decode(model: &Decoder<FeedForwardLayer>, greedy: &Greedy, width: usize) -> Vec<Check> {
    let prompt: Vec<u32> = greedy.prompt.iter().map(|id| *id as u32).collect();
    [("full forward", false), ("with cache", true)]
        .map(|(how, use_cache)| {
            let what = format!("greedy tokens, {how}");
            match generate::greedy(model, &prompt, greedy.tokens.len(), use_cache, width) {
                Ok(tokens) => {
                    let mut pairs = tokens.iter().zip(&greedy.tokens);
                    let at = pairs.position(|(a, b)| i64::from(*a) != *b);
                    let at = at.map_or(String::new(), |at| format!("token {at}"));
                    Check::exact(
                        what,
                        at.is_empty() && tokens.len() == greedy.tokens.len(),
                        at,
                    )
                }
                Err(error) => Check::exact(what, false, error.to_string()),
            }
        })
        .to_vec()
}

#[cfg(test)]
mod tests {
    use hybridnorm_core::DecoderConfig;

    use super::*;

    /// A third has as many digits as a number can have.
    #[test]
    fn numbers_of_many_digits_survive_the_round_trip() {
        let decoder = DecoderConfig {
            softmax_scale: Some(9f64.powf(-0.5)),
            ..DecoderConfig::new(41, 16, 4, 2)
        };
        let check = layout(&decoder.into());
        assert!(check.passed, "{check:?}");
    }
}
