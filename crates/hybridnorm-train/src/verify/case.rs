//! The reference's JSON files, as far as they are read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hybridnorm_interop::official::OfficialConfig;
use hybridnorm_interop::{InteropError, TensorFile};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A reference folder.
#[derive(Debug)]
pub struct CaseDir(pub PathBuf);

impl CaseDir {
    /// Reads one of its JSON files.
    ///
    /// # Errors
    /// When it cannot be read or holds something else.
    pub fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T, InteropError> {
        let path = self.0.join(file);
        let text = std::fs::read(&path).map_err(|source| InteropError::Read {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|error| InteropError::Format {
            path,
            expected: "reference",
            reason: error.to_string(),
        })
    }

    /// Opens one of its safetensors files.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn tensors(&self, file: &str) -> Result<TensorFile, InteropError> {
        TensorFile::open(self.0.join(file))
    }

    /// Whether it has such a file.
    pub fn has(&self, file: &str) -> bool {
        Path::is_file(&self.0.join(file))
    }
}

/// `case.json` of a `dense_*` or `moe_*` case.
#[derive(Debug, Deserialize)]
pub struct OfficialCase {
    /// The authors' configuration.
    pub model_config: OfficialConfig,
    /// Counts derived from it.
    pub derived: Derived,
    /// The reference's own f32 error, by tensor name.
    pub precision_f32_vs_f64: BTreeMap<String, Precision>,
    /// Losses of the first forward pass.
    #[serde(default)]
    pub losses: BTreeMap<String, Option<f64>>,
    /// Greedy decoding.
    #[serde(default)]
    pub greedy: Option<Greedy>,
}

/// `case.json` of an `hf_*` case.
#[derive(Debug, Deserialize)]
pub struct HuggingFaceCase {
    /// All parameters.
    pub n_params: usize,
    /// The reference's own f32 error, by tensor name.
    pub precision_f32_vs_f64: BTreeMap<String, Precision>,
    /// Losses of the first forward pass.
    #[serde(default)]
    pub losses: BTreeMap<String, Option<f64>>,
    /// What concerns the routers, of a sparse model.
    #[serde(default)]
    pub moe: BTreeMap<String, serde_json::Value>,
    /// Greedy decoding.
    #[serde(default)]
    pub greedy: Option<Greedy>,
}

/// Counts derived from a configuration.
#[derive(Debug, Deserialize)]
pub struct Derived {
    /// All parameters.
    pub n_params: usize,
}

/// The reference's own f32 error on one tensor.
#[derive(Debug, Deserialize)]
pub struct Precision {
    /// Largest |f32 − f64|; absent where something else is listed.
    #[serde(default)]
    pub max_abs_err: Option<f64>,
}

/// Greedy decoding of a prompt.
#[derive(Debug, Deserialize)]
pub struct Greedy {
    /// Token ids.
    pub prompt: Vec<i64>,
    /// The tokens that follow.
    pub tokens: Vec<i64>,
}

/// `trajectory.json`: AdamW steps from the case's weights.
#[derive(Debug, Deserialize)]
pub struct Trajectory {
    /// Optimiser settings.
    pub optimizer: OptimizerSettings,
    /// Schedule settings, in steps.
    pub scheduler: SchedulerSettings,
    /// Which parameters decay.
    pub param_groups: Vec<Group>,
    /// What was measured in each step.
    pub steps: Vec<StepRecord>,
    /// Digests of the parameters after some steps.
    pub weights_after_step: BTreeMap<u64, BTreeMap<String, Digest>>,
    /// Loss on the first inputs with the last weights.
    pub loss_mean_on_input_ids_after_20_steps: f64,
    /// The same in f64.
    pub loss_mean_on_input_ids_after_20_steps64: f64,
}

/// AdamW as the reference ran it.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are the reference's own")]
pub struct OptimizerSettings {
    pub peak_lr: f64,
    pub betas: [f64; 2],
    pub eps: f64,
    pub weight_decay: f64,
    pub max_grad_norm: f64,
    pub decay_norm_and_bias: bool,
    pub decay_embeddings: bool,
}

/// The schedule as the reference ran it.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are the reference's own")]
pub struct SchedulerSettings {
    pub name: String,
    pub t_warmup: u64,
    pub max_steps: u64,
    #[serde(default)]
    pub t_max: Option<u64>,
    pub alpha_f: f64,
    pub warmup_min_lr: Option<f64>,
}

/// One parameter group.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are the reference's own")]
pub struct Group {
    pub weight_decay: f64,
    pub param_names: Vec<String>,
}

/// Measurements of one step; names ending in 64 come from the f64 run.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are the reference's own")]
pub struct StepRecord {
    pub step: u64,
    pub loss_mean: f64,
    pub loss_mean64: f64,
    pub loss_train: f64,
    pub loss_train64: f64,
    pub lr: f64,
    pub grad_norm: f64,
    pub grad_norm64: f64,
    pub clip_coef: f64,
    pub clip_coef64: f64,
    #[serde(default)]
    pub lb_loss: Option<f64>,
    #[serde(default)]
    pub lb_loss64: Option<f64>,
    #[serde(default)]
    pub moe_z_loss: Option<f64>,
    #[serde(default)]
    pub moe_z_loss64: Option<f64>,
    #[serde(default)]
    pub total_loss: Option<f64>,
    #[serde(default)]
    pub total_loss64: Option<f64>,
}

/// A parameter's values in brief, row-major in the reference's orientation.
#[derive(Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are the reference's own")]
pub struct Digest {
    pub l2: f64,
    pub sum: f64,
    pub first: Vec<f64>,
    pub last: Vec<f64>,
    pub max_abs_err: f64,
}
