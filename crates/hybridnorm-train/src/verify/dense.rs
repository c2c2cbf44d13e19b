//! A `dense_*` case: logits, hidden states, loss, every gradient, greedy tokens.

use burn::module::Module;
use burn::tensor::Device;
use hybridnorm_core::{Decoder, DecoderConfig};
use hybridnorm_interop::official::name_of;
use hybridnorm_interop::{Array, InteropError, TensorFile, load};

use super::case::{CaseDir, DenseCase, Greedy, Trajectory};
use super::check::{Check, largest_difference};
use super::record::{Record, Work};
use crate::generate;

/// A case, read.
pub struct Dense {
    case: DenseCase,
    config: DecoderConfig,
    weights: TensorFile,
    expected: TensorFile,
    trajectory: Option<Trajectory>,
    work: Work,
}

impl Dense {
    /// Reads the case in `dir`.
    ///
    /// # Errors
    /// When it cannot be read, or needs what is not implemented.
    pub fn read(dir: &CaseDir) -> Result<Self, InteropError> {
        let case: DenseCase = dir.json("case.json")?;
        let inputs = dir.tensors("inputs.safetensors")?;
        let trajectory: Option<Trajectory> = match dir.has("trajectory.json") {
            true => Some(dir.json("trajectory.json")?),
            false => None,
        };
        let steps = trajectory
            .as_ref()
            .map(|trajectory| trajectory.work(inputs.array("batches")?));
        Ok(Self {
            config: case.model_config.to_decoder()?,
            case,
            weights: dir.tensors("weights.safetensors")?,
            expected: dir.tensors("expected.safetensors")?,
            trajectory,
            work: Work {
                tokens: inputs.array("input_ids")?,
                trajectory: steps.transpose()?,
            },
        })
    }

    /// What the case computes.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// The case's model.
    ///
    /// # Errors
    /// When its weights do not fit.
    pub fn model(&self, device: &Device) -> Result<Decoder, InteropError> {
        load(self.config.init(device)?, &self.weights, name_of)
    }

    /// What a device computed, against what the authors' code computed.
    ///
    /// # Errors
    /// When the case lacks a tensor.
    pub fn compare(&self, found: &Record, model: &Decoder) -> Result<Vec<Check>, InteropError> {
        let (built, expected) = (model.num_params(), self.case.derived.n_params);
        let mut checks = vec![Check::exact(
            "parameter count",
            self.config.num_params()? == expected && built == expected,
            format!("{built} built, {expected} expected"),
        )];
        let comparer = Comparer {
            case: &self.case,
            expected: &self.expected,
        };
        comparer.forward(found, &mut checks)?;
        if let Some(greedy) = &self.case.greedy {
            let width = self.config.padded_vocab_size;
            checks.extend(decode(&model.valid(), greedy, width));
        }
        if let Some(trajectory) = &self.trajectory {
            checks.extend(trajectory.compare(found, model));
        }
        checks.push(layout(&self.config));
        Ok(checks)
    }
}

/// The configuration survives a round trip through its file format.
fn layout(config: &DecoderConfig) -> Check {
    let back = serde_json::to_string(config).and_then(|text| serde_json::from_str(&text));
    let equal = back.is_ok_and(|back: DecoderConfig| back == *config);
    Check::exact("configuration round trip", equal, "")
}

struct Comparer<'a> {
    case: &'a DenseCase,
    expected: &'a TensorFile,
}

impl Comparer<'_> {
    /// Logits, hidden states, losses and gradients on the case's inputs.
    fn forward(&self, found: &Record, checks: &mut Vec<Check>) -> Result<(), InteropError> {
        for (name, value) in found.named() {
            checks.push(self.compare(&name, value)?);
        }
        let Some(losses) = found.losses else {
            return Ok(());
        };
        for (name, loss) in [("loss", losses.mean), ("loss_train", losses.train)] {
            let loss = Array {
                shape: vec![1],
                values: vec![loss],
            };
            checks.push(self.compare(name, Some(&loss))?);
        }
        for (path, grad) in &found.gradients {
            checks.push(self.compare(&format!("grad.{path}"), grad.as_ref())?);
        }
        let missing: Vec<String> = self
            .expected
            .names()
            .into_iter()
            .filter(|name| name.starts_with("grad."))
            .filter(|name| {
                !found
                    .gradients
                    .iter()
                    .any(|(path, _)| *name == format!("grad.{path}"))
            })
            .collect();
        checks.push(Check::exact(
            "every gradient is compared",
            missing.is_empty(),
            missing.join(", "),
        ));
        Ok(())
    }

    /// Against the f64 value where there is one, otherwise the f32 one.
    fn compare(&self, name: &str, found: Option<&Array>) -> Result<Check, InteropError> {
        let Some(found) = found else {
            return Ok(Check::exact(name, false, "there is no such value"));
        };
        let single = self.expected.array(name)?;
        let double = format!("{name}64");
        let double = self
            .expected
            .contains(&double)
            .then(|| self.expected.array(&double))
            .transpose()?;
        let listed = self
            .case
            .precision_f32_vs_f64
            .get(name)
            .map(|p| p.max_abs_err);
        let measured = double
            .as_ref()
            .map(|d| largest_difference(&d.values, &single.values));
        let own = listed.or(measured).or(self.loss_error(name)).unwrap_or(0.0);
        Ok(Check::close(
            name,
            &found.values,
            double.as_ref().unwrap_or(&single),
            own,
        ))
    }

    /// The error of the losses stands apart from the tensors'.
    fn loss_error(&self, name: &str) -> Option<f64> {
        let of = |key: &str| self.case.losses.get(key).copied().flatten();
        match name {
            "loss" => of("loss_mean_abs_err"),
            "loss_train" => Some((of("loss_train")? - of("loss_train64")?).abs()),
            _ => None,
        }
    }
}

/// Greedy tokens with and without the cache, over the full width of the logits.
fn decode(model: &Decoder, greedy: &Greedy, width: usize) -> Vec<Check> {
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
