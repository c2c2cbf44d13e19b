//! Every parameter of a module by path, and which of them decay.

use burn::module::{Module, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;

/// One parameter of a module.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamInfo {
    /// Where it stands, e.g. `blocks.0.attention.qkv.weight`.
    pub path: String,
    /// Its identity in gradients and optimiser state.
    pub id: ParamId,
    /// Its shape.
    pub shape: Vec<usize>,
    /// What it is.
    pub kind: ParamKind,
}

/// What a parameter is, as far as the optimiser cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Weight of a norm, or any bias.
    NormOrBias,
    /// Token embedding.
    Embedding,
    /// The matrix before the logits, where it is not the embedding.
    Head,
    /// Everything else: the matrices of the blocks.
    Matrix,
}

/// All parameters of `module`, in the order it declares them.
pub fn params<M: Module>(module: &M) -> Vec<ParamInfo> {
    let mut collector = Collector::default();
    module.visit(&mut collector);
    collector.found
}

#[derive(Default)]
struct Collector {
    path: Vec<(String, String)>,
    found: Vec<ParamInfo>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path
            .push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let names: Vec<&str> = self.path.iter().map(|(name, _)| name.as_str()).collect();
        let inside = |container: &str| self.path.iter().any(|(_, kind)| kind.ends_with(container));
        let is_bias = names.last().is_some_and(|name| *name == "bias");
        let kind = if is_bias || inside("Norm") {
            ParamKind::NormOrBias
        } else if inside("Embedding") {
            ParamKind::Embedding
        } else if names.iter().rev().nth(1) == Some(&"head") {
            ParamKind::Head
        } else {
            ParamKind::Matrix
        };
        self.found.push(ParamInfo {
            path: names.join("."),
            id: param.id,
            shape: param.lazy_shape().to_vec(),
            kind,
        });
    }
}

/// Which parameters decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRule {
    /// Norm weights and biases do.
    pub decay_norm_and_bias: bool,
    /// The embedding does.
    pub decay_embeddings: bool,
}

impl GroupRule {
    /// Whether `param` decays; matrices always do.
    pub fn decays(&self, param: &ParamInfo) -> bool {
        match param.kind {
            ParamKind::NormOrBias => self.decay_norm_and_bias,
            ParamKind::Embedding => self.decay_embeddings,
            ParamKind::Head | ParamKind::Matrix => true,
        }
    }
}

/// The widths of the matrices that stand side by side in `param`, one of `all`; none where it is not one for Muon, which leaves
/// embedding, head, norms and biases to AdamW (as its author says).
///
/// A block computes query, key and value, and value and gate of a SwiGLU, in one product each; they are matrices of their own
/// nonetheless, which Muon's author steps one by one. The output projection tells how wide the first of them is.
pub(super) fn muon_columns(param: &ParamInfo, all: &[ParamInfo]) -> Vec<usize> {
    let &[.., _, width] = param.shape.as_slice() else {
        return Vec::new();
    };
    if param.kind != ParamKind::Matrix {
        return Vec::new();
    }
    let inputs_of_output = |fused: &str| {
        let output = format!("{}output.weight", param.path.strip_suffix(fused)?);
        let output = all.iter().find(|other| other.path == output)?;
        output.shape.first().copied()
    };
    match (
        inputs_of_output("qkv.weight"),
        inputs_of_output("input.weight"),
    ) {
        (Some(query), _) if query < width && (width - query).is_multiple_of(2) => {
            let key = (width - query) / 2;
            vec![query, key, key]
        }
        (_, Some(d_ff)) if width == 2 * d_ff => vec![d_ff; 2],
        _ => vec![width],
    }
}
