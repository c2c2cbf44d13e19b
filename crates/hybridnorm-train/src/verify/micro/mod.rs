//! A `micro_dense*` or `micro_moe*` case: single modules, losses and the recipe's parts by themselves, forward and backward.

mod adamw;
mod attention;
mod init;
mod named;
mod pointwise;
mod recipe;
mod sparse;

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};
use hybridnorm_core::init::Initializer;
use hybridnorm_core::{InitConfig, InitScheme};
use hybridnorm_interop::{Array, InteropError, TensorFile};
use serde::Deserialize;

use super::case::CaseDir;
use super::check::{Check, largest_difference};
use super::values::array_of;

#[derive(Deserialize)]
struct Meta {
    entries: BTreeMap<String, serde_json::Value>,
}

/// Runs every check of the case in `dir`.
///
/// # Errors
/// When the case cannot be read.
pub fn run(dir: &CaseDir, device: &Device) -> Result<Vec<Check>, InteropError> {
    let meta: Meta = dir.json("meta.json")?;
    let device = &device.clone().autodiff();
    let mut checks = Vec::new();
    if dir.has("norms.safetensors") {
        pointwise::norms(
            &Values::open(dir, "norms.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    if dir.has("pointwise.safetensors") {
        pointwise::pointwise(
            &Values::open(dir, "pointwise.safetensors")?,
            device,
            &mut checks,
        )?;
    }
    if dir.has("rope.safetensors") {
        attention::rope(
            &Values::open(dir, "rope.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    if dir.has("attention.safetensors") {
        attention::attention(
            &Values::open(dir, "attention.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    if dir.has("loss.safetensors") {
        pointwise::loss(
            &Values::open(dir, "loss.safetensors")?,
            &meta,
            device,
            &mut checks,
        )?;
    }
    if dir.has("aux_losses.safetensors") {
        let values = Values::open(dir, "aux_losses.safetensors")?;
        sparse::losses(&values, &meta, device, &mut checks)?;
    }
    if dir.has("layer.safetensors") {
        let values = Values::open(dir, "layer.safetensors")?;
        sparse::layers(&values, &meta, device, &mut checks)?;
    }
    recipe::run(dir, device, &mut checks)?;
    Ok(checks)
}

/// A file whose entries come in single and (suffix 64) double precision.
struct Values(TensorFile);

impl Values {
    fn open(dir: &CaseDir, file: &str) -> Result<Self, InteropError> {
        Ok(Self(dir.tensors(file)?))
    }

    fn tensor<const D: usize>(
        &self,
        name: &str,
        device: &Device,
    ) -> Result<Tensor<D>, InteropError> {
        let array = self.0.array(name)?;
        Ok(Tensor::from_data(array.to_f32(), device))
    }

    /// Against the f64 value; the reference's own error is its f32 value's distance from that.
    fn compare(&self, name: &str, found: Array) -> Result<Check, InteropError> {
        let single = self.0.array(name)?;
        let double = format!("{name}64");
        if !self.0.contains(&double) {
            return Ok(Check::close(name, &found.values, &single, 0.0));
        }
        let double = self.0.array(&double)?;
        let own = largest_difference(&single.values, &double.values);
        Ok(Check::close(name, &found.values, &double, own))
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// What stands before `suffix` in the names that end with it.
    fn stems(&self, suffix: &str) -> Vec<String> {
        let names = self.0.names();
        names
            .iter()
            .filter_map(|name| name.strip_suffix(suffix))
            .map(str::to_string)
            .collect()
    }
}

fn setting(meta: &Meta, entry: &str, key: &str) -> Option<f64> {
    meta.entries.get(entry)?.get(key)?.as_f64()
}

/// The gradient of `x`, zero where it has none.
fn gradient<const D: usize>(x: &Tensor<D>, grads: &burn::tensor::Gradients) -> Array {
    array_of(
        x.grad(grads)
            .unwrap_or_else(|| x.clone().inner().zeros_like()),
    )
}

fn plain_init(d_model: usize) -> Result<Initializer, InteropError> {
    Ok(Initializer::new(
        &InitConfig::default(),
        InitScheme::Normal,
        d_model,
        1,
    )?)
}

/// The refusal of a reference file that lacks a field.
fn malformed(what: &str) -> InteropError {
    InteropError::Format {
        path: what.into(),
        expected: "reference",
        reason: "this part of it is missing or of another kind".to_string(),
    }
}
