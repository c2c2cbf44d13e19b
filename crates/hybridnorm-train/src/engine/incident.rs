//! `incidents/step-N.json`: all there is to know about a step that went wrong.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::error::TrainError;
use super::loader::BatchSource;
use super::model::LanguageModel;
use super::step::StepFigures;
use crate::guard::Action;
use crate::recipe::params;

/// A step that went wrong. Figures are text, since JSON has no word for NaN and infinity.
#[derive(Debug, Serialize)]
pub(super) struct Incident {
    /// The step, counted from 1.
    step: u64,
    /// What was wrong.
    message: String,
    /// What followed.
    action: Action,
    /// Mean cross-entropy in nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<String>,
    /// Global norm of the averaged gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    grad_norm: Option<String>,
    /// The same of each layer's parameters, and of those outside the layers.
    layer_grad_norms: BTreeMap<String, String>,
    /// Of each parameter.
    parameter_grad_norms: BTreeMap<String, String>,
    /// Where the batch's sequences come from, if the source can tell.
    documents: Vec<String>,
    /// The batch: `[batch, seq + 1]` token ids.
    tokens: Vec<Vec<u32>>,
}

impl Incident {
    /// Collects what is known of `step`; `figures` are those of its gradient, where it came that far.
    pub(super) fn new(
        step: u64,
        message: String,
        action: Action,
        figures: Option<&StepFigures>,
        model: &LanguageModel,
        source: &dyn BatchSource,
        seq: usize,
    ) -> Self {
        let mut incident = Self {
            step,
            message,
            action,
            loss: figures.map(|figures| figures.loss.to_string()),
            grad_norm: figures.map(|figures| figures.norm.to_string()),
            layer_grad_norms: BTreeMap::new(),
            parameter_grad_norms: BTreeMap::new(),
            documents: source.documents(step - 1),
            // Of a batch that cannot be read there is nothing to tell.
            tokens: source.batch(step - 1).map_or_else(
                |_| Vec::new(),
                |batch| batch.tokens.chunks(seq + 1).map(<[u32]>::to_vec).collect(),
            ),
        };
        let norms = figures.map_or(&[][..], |figures| &figures.norms);
        let paths: BTreeMap<_, _> = params(model).into_iter().map(|p| (p.id, p.path)).collect();
        let mut squares: BTreeMap<String, f64> = BTreeMap::new();
        for (id, norm) in norms {
            let Some(path) = paths.get(id) else { continue };
            let path = path.strip_prefix("decoder.").unwrap_or(path);
            *squares.entry(layer(path)).or_default() += norm * norm;
            let text = norm.to_string();
            incident.parameter_grad_norms.insert(path.to_string(), text);
        }
        let roots = squares.into_iter();
        incident.layer_grad_norms = roots
            .map(|(layer, square)| (layer, square.sqrt().to_string()))
            .collect();
        incident
    }

    /// Writes it into `dir` and returns where.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn save(&self, dir: &Path) -> Result<PathBuf, TrainError> {
        let path = dir.join(format!("step-{}.json", self.step));
        let text = serde_json::to_vec_pretty(self);
        let text = text.map_err(|error| TrainError::io("write", &path)(error.into()))?;
        fs::create_dir_all(dir).map_err(TrainError::io("create", dir))?;
        fs::write(&path, text).map_err(TrainError::io("write", &path))?;
        Ok(path)
    }
}

/// `blocks.3` of `blocks.3.attention.qkv.weight`, `final_norm` of `final_norm.weight`.
fn layer(path: &str) -> String {
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or(path);
    match (first, parts.next()) {
        ("blocks", Some(number)) => format!("blocks.{number}"),
        _ => first.to_string(),
    }
}
