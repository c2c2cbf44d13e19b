//! A `dense_*` case: logits, hidden states, loss, every gradient, greedy tokens.

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use hybridnorm_core::loss::token_losses;
use hybridnorm_core::{Decoder, DecoderConfig, Pass};
use hybridnorm_interop::official::name_of;
use hybridnorm_interop::{Array, InteropError, TensorFile, load};

use super::case::{CaseDir, DenseCase, Greedy};
use super::check::{Check, largest_difference};
use super::trajectory;
use super::values::{array_of, gradients};
use crate::generate;

/// Runs every check of the case in `dir`.
///
/// # Errors
/// When the case cannot be read, or needs what is not implemented.
pub fn run(dir: &CaseDir, device: &Device) -> Result<Vec<Check>, InteropError> {
    let case: DenseCase = dir.json("case.json")?;
    let config = case.model_config.to_decoder()?;
    let weights = dir.tensors("weights.safetensors")?;
    let inputs = dir.tensors("inputs.safetensors")?;
    let expected = dir.tensors("expected.safetensors")?;
    let training = device.clone().autodiff();
    let model = load(config.init(&training)?, &weights, name_of)?;

    let mut checks = vec![Check::exact(
        "parameter count",
        config.num_params()? == case.derived.n_params
            && model.num_params() == case.derived.n_params,
        format!(
            "{} built, {} expected",
            model.num_params(),
            case.derived.n_params
        ),
    )];
    let comparer = Comparer {
        case: &case,
        expected: &expected,
    };
    let tokens = inputs.array("input_ids")?;
    comparer.forward(&model, &tokens, &training, &mut checks)?;
    if let Some(greedy) = &case.greedy {
        checks.extend(decode(&model.valid(), greedy, config.padded_vocab_size));
    }
    if dir.has("trajectory.json") {
        let batches = inputs.array("batches")?;
        checks.extend(trajectory::run(dir, model, &tokens, &batches, &training)?);
    }
    checks.push(layout(&config));
    Ok(checks)
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
    fn forward(
        &self,
        model: &Decoder,
        tokens: &Array,
        device: &Device,
        checks: &mut Vec<Check>,
    ) -> Result<(), InteropError> {
        let ids = Tensor::<2, Int>::from_data(tokens.to_i64(), device);
        let mut pass = Pass::causal().traced();
        let logits = model.forward_in(ids.clone(), &mut pass);
        let trace = pass.into_trace().unwrap_or_default();
        if let Some(x) = trace.embedding {
            checks.push(self.compare("hidden.embed", x)?);
        }
        for (site, layers) in [
            ("attn_out", trace.attention),
            ("ffn_out", trace.feed_forward),
            ("hidden", trace.hidden),
        ] {
            for (layer, x) in layers.into_iter().enumerate() {
                checks.push(self.compare(&format!("{site}.{layer}"), x)?);
            }
        }
        if let Some(x) = trace.final_norm {
            checks.push(self.compare("hidden.ln_f", x)?);
        }
        checks.push(self.compare("logits", logits.clone())?);
        if !self.expected.contains("loss") {
            return Ok(()); // a single token has no next one
        }
        let (mean, train) = reference_losses(logits, ids);
        checks.push(self.compare("loss", mean.clone())?);
        checks.push(self.compare("loss_train", train)?);
        let grads = GradientsParams::from_grads(mean.backward(), model);
        let found = gradients(model, &grads);
        for (path, grad) in &found {
            let name = format!("grad.{path}");
            checks.push(self.compare_array(&name, grad.as_ref())?);
        }
        let missing: Vec<String> = self
            .expected
            .names()
            .into_iter()
            .filter(|name| name.starts_with("grad."))
            .filter(|name| {
                !found
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

    fn compare<const D: usize>(&self, name: &str, found: Tensor<D>) -> Result<Check, InteropError> {
        self.compare_array(name, Some(&array_of(found)))
    }

    /// Against the f64 value where there is one, otherwise the f32 one.
    fn compare_array(&self, name: &str, found: Option<&Array>) -> Result<Check, InteropError> {
        let Some(found) = found else {
            return Ok(Check::exact(name, false, "there is no such gradient"));
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

/// (mean over the B·(T−1) targets, the official training loss: the same sum over B·T); paper.md §3.4.
pub fn reference_losses(logits: Tensor<3>, ids: Tensor<2, Int>) -> (Tensor<1>, Tensor<1>) {
    let [batch, seq, vocab] = logits.dims();
    let targets = batch * (seq - 1);
    let logits = logits.narrow(1, 0, seq - 1).reshape([targets, vocab]);
    let next = ids.narrow(1, 1, seq - 1).reshape([targets]);
    let sum = token_losses(logits, next, None).nll.sum();
    (sum.clone() / targets as f64, sum / (batch * seq) as f64)
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
