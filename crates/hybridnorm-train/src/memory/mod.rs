//! How much memory a run takes, by component, before it starts.
//!
//! The sums are arithmetic on the table of operations (`operations.rs`). Two things are not: the process without a model, which was measured,
//! and that memory which was freed stays with the process. glibc gives blocks of 32 MiB and more back to the system; the holes that
//! smaller ones leave are filled by blocks of their size only, so the gradients of one step and the activations of the next take their
//! room side by side. Burn's pools on a GPU keep memory likewise, but nothing was measured there.

mod fit;
mod operations;
mod report;
#[cfg(test)]
mod tests;

use hybridnorm_core::{ConfigError, LayerNorms, logit_rows};
use hybridnorm_moe::ModelConfig;

pub use fit::TooLarge;
use operations::{Operation, Table};
pub(crate) use report::in_words;

use crate::engine::{Precision, Recompute, Stages};
use crate::recipe::OptimizerName;
use crate::run::RunConfig;

/// The program with a model of nearly nothing, without the pages of its file: 24 MiB in `bench step`, 22 in `train` with a little text.
const PROCESS: f64 = 24.0 * MIB;
const MIB: f64 = 1024.0 * 1024.0;
/// Blocks from here on go back to the system when they are freed (glibc's largest `M_MMAP_THRESHOLD`).
const RETURNED: f64 = 32.0 * MIB;
/// Part of a recomputed block's small activations whose room is not used again: the gradients that it leaves behind lie among them.
/// Measured, not derived: 0.1 to 0.4 in runs of 4 to 12 layers.
const FRAGMENTED: f64 = 0.25;
/// Part of the small activations of a pass whose room its gradients do not use again. Fitted: with it the shapes of `tests/memory.rs` are
/// predicted within 9 %.
const LEFT: f64 = 0.5;
/// Bytes of a float.
const FLOAT: f64 = 4.0;

/// All that decides how much memory a run takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The model.
    pub model: ModelConfig,
    /// Which moments there are.
    pub optimizer: OptimizerName,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Sequences in a forward and backward pass.
    pub micro_batch: usize,
    /// Such passes in a step, on each device.
    pub accumulation: usize,
    /// How a pass is divided.
    pub stages: Stages,
    /// Devices that share the memory.
    pub devices: usize,
    /// Where the process lies in the same memory, the bytes of its data.
    pub host: Option<u64>,
}

/// Memory by component, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// The parameters.
    pub weights: u64,
    /// Their gradients: of a micro-batch, and the sum of those before.
    pub gradients: u64,
    /// The optimiser's moments.
    pub optimizer: u64,
    /// What the blocks keep for the backward pass.
    pub activations: u64,
    /// The logits, or whatever else is being computed when most is in use.
    pub working: u64,
    /// Text, tokens and yardsticks.
    pub data: u64,
    /// The process without all that.
    pub process: u64,
}

impl Memory {
    /// Every component by name, and what it is.
    pub fn components(&self) -> [(&'static str, u64); 7] {
        [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimiser state", self.optimizer),
            ("activations", self.activations),
            ("logits and working memory", self.working),
            ("data", self.data),
            ("process", self.process),
        ]
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        let components = self.components().into_iter();
        components.fold(0, |sum, (_, bytes)| sum.saturating_add(bytes))
    }
}

/// What exists at once beside weights, gradients and moments.
#[derive(Debug, Clone, Copy, Default)]
struct Pass {
    activations: f64,
    working: f64,
}

impl Workload {
    /// The run that `config` stands for, on `devices` of which `sharing` share a memory, also with the process and its `data` where `host`
    /// says so.
    pub fn of(config: &RunConfig, devices: usize, sharing: usize, host: Option<u64>) -> Self {
        let training = &config.training;
        Self {
            model: config.model_config(),
            optimizer: config.optimizer.name,
            seq: training.seq,
            micro_batch: training.micro_batch,
            accumulation: training.accumulation() / devices.max(1),
            stages: training.stages(),
            devices: sharing.max(1),
            host,
        }
    }

    /// The peak of its memory.
    ///
    /// # Errors
    /// When the model's configuration is not allowed.
    pub fn memory(&self) -> Result<Memory, ConfigError> {
        let parameters = self.model.num_params()?.0 as f64;
        let matrices = self.matrices();
        let weights = FLOAT * parameters;
        let summed = if self.accumulation > 1 { weights } else { 0.0 };
        let (passing, left) = self.passes()?;
        let others = (self.devices.max(1) - 1) as f64;

        // When the backward pass begins, and when the optimiser steps.
        let largest = matrices.into_iter().fold(0.0, f64::max);
        let stepping = Pass {
            activations: LEFT * left,
            working: largest * self.step_tensors(),
        };
        // The activations come to lie in the room that the gradients of the step before have left.
        let reused = weights.min(passing.activations);
        let passing = Pass {
            activations: passing.activations - reused,
            ..passing
        };
        let all = |pass: Pass, gradients: f64| (pass, summed + gradients);
        let backward = [all(passing, reused), all(stepping, weights)];
        let most = backward
            .into_iter()
            .max_by(|a, b| bytes_of(a).total_cmp(&bytes_of(b)));
        let (pass, gradients) = most.unwrap_or_default();
        let whole = |bytes: f64| bytes.round() as u64;
        Ok(Memory {
            weights: whole(weights),
            gradients: whole(gradients * (1.0 + others)),
            optimizer: whole(self.moments(parameters)),
            activations: whole(pass.activations * (1.0 + others)),
            working: whole(pass.working * (1.0 + others)),
            data: self.host.unwrap_or(0),
            process: self.host.map_or(0, |_| whole(PROCESS)),
        })
    }

    /// Bytes of every large parameter: matrices, embedding, head, all experts of a layer in one.
    fn matrices(&self) -> Vec<f64> {
        let model = &self.model.decoder;
        let matrix = |rows: usize, columns: usize| FLOAT * rows as f64 * columns as f64;
        let d = model.d_model;
        let (query, key) = (
            model.n_heads * model.head_dim(),
            model.n_kv_heads * model.head_dim(),
        );
        let mut all = vec![matrix(model.padded_vocab_size, d)];
        if !model.tied {
            all.push(matrix(model.padded_vocab_size, d));
        }
        for layer in 0..model.n_layers {
            all.extend([matrix(d, query + 2 * key), matrix(query, d)]);
            match self.model.sparse_at(layer) {
                Some(sparse) => {
                    let experts = matrix(sparse.router.n_experts * d, sparse.d_ff);
                    all.extend([experts; 3]);
                    let shared = sparse.shared_d_ff.unwrap_or(0);
                    all.extend([matrix(d, 2 * shared), matrix(shared, d)]);
                }
                None => {
                    let branches = 1 + usize::from(model.activation.is_gated());
                    all.extend([matrix(d, branches * model.d_ff), matrix(model.d_ff, d)]);
                }
            }
        }
        all
    }

    /// AdamW has two moments for each parameter, Muon one for the matrices of the blocks.
    fn moments(&self, parameters: f64) -> f64 {
        let model = &self.model.decoder;
        let outside = model.padded_vocab_size as f64 * model.d_model as f64;
        let outside = outside * if model.tied { 1.0 } else { 2.0 };
        FLOAT
            * match self.optimizer {
                OptimizerName::AdamW => 2.0 * parameters,
                OptimizerName::Muon => parameters + outside,
            }
    }

    /// Copies of the largest matrix that exist while it is stepped: what it was before; Muon's iteration has more.
    fn step_tensors(&self) -> f64 {
        match self.optimizer {
            OptimizerName::AdamW => 1.0,
            OptimizerName::Muon => 6.0,
        }
    }

    /// What a forward and backward pass takes at most, and what of its activations stays with the process when it is over.
    fn passes(&self) -> Result<(Pass, f64), ConfigError> {
        let model = &self.model.decoder;
        let tokens = (self.micro_batch * self.seq) as f64;
        let table = Table {
            decoder: model,
            product: match self.stages.precision {
                Precision::F32 => 1.0,
                Precision::Bf16 => 0.5,
            },
        };
        let norms = (0..model.n_layers).map(|layer| model.placement.layer(layer, model.n_layers));
        let norms: Vec<LayerNorms> = norms.collect::<Result<_, _>>()?;
        let blocks = norms.iter().enumerate();
        let blocks = blocks.map(|(layer, norms)| table.block(norms, self.model.sparse_at(layer)));
        let blocks: Vec<Vec<Operation>> = blocks.collect();
        let first = model.has_embedding_norm().then(|| table.norm());
        let last = model.has_final_norm()?.then(|| table.norm());
        let stream = FLOAT * tokens * model.d_model as f64;
        let rows = self.micro_batch * self.seq;
        let rows = logit_rows(self.stages.logit_rows, rows, model.padded_vocab_size);
        let head = self.head(&table.head(), rows, stream);
        if self.stages.recompute == Recompute::None {
            let below = first
                .into_iter()
                .chain(blocks.into_iter().flatten())
                .chain(last);
            let all: Vec<Operation> = below.collect();
            let pass = Pass {
                activations: bytes(kept(&all), tokens) + self.copies(model.n_layers),
                working: head.max(above(&all, tokens) + 2.0 * stream),
            };
            return Ok((pass, left(&all, tokens)));
        }
        // The input of every block, that of the final norm, and a gradient.
        let inputs = (model.n_layers + 1) as f64 * stream;
        let last: Vec<Operation> = last.into_iter().collect();
        let at_head = Pass {
            activations: inputs + bytes(kept(&last), tokens) + stream,
            working: head,
        };
        let mut left = 0f64;
        let mut most = at_head;
        for (block, inputs) in blocks.iter().zip(2..) {
            let remains = self::left(block, tokens);
            let kept = bytes(kept(block), tokens) + self.copies(1);
            let pass = Pass {
                activations: f64::from(inputs) * stream + kept,
                working: above(block, tokens) + 2.0 * stream + FRAGMENTED * remains,
            };
            if pass.total() > most.total() {
                most = pass;
            }
            left = left.max(remains);
        }
        Ok((most, left))
    }

    /// The head on `rows` rows at a time: the gradients of its input and of its matrix beside what a slice takes.
    fn head(&self, head: &[Operation], rows: usize, stream: f64) -> f64 {
        let model = &self.model.decoder;
        let matrix = FLOAT * model.padded_vocab_size as f64 * model.d_model as f64;
        bytes(kept(head), rows as f64) + above(head, rows as f64) + stream + matrix
    }

    /// The parameters of `layers` blocks in the type of their products, where it is another one.
    fn copies(&self, layers: usize) -> f64 {
        if self.stages.precision == Precision::F32 {
            return 0.0;
        }
        let model = &self.model.decoder;
        let outside = if model.tied { 1 } else { 2 };
        let blocks: f64 = self.matrices().into_iter().skip(outside).sum();
        let head = FLOAT * model.padded_vocab_size as f64 * model.d_model as f64;
        0.5 * (head + blocks * layers as f64 / model.n_layers as f64)
    }
}

impl Pass {
    fn total(&self) -> f64 {
        self.activations + self.working
    }
}

fn bytes_of((pass, gradients): &(Pass, f64)) -> f64 {
    pass.total() + gradients
}

fn bytes(floats: f64, tokens: f64) -> f64 {
    FLOAT * floats * tokens
}

/// Floats for each token that all of `operations` keep.
fn kept(operations: &[Operation]) -> f64 {
    operations.iter().map(|operation| operation.kept).sum()
}

/// Bytes that the backward pass takes beyond what was kept: it goes backwards, and frees on its way. What small tensors leave free is of
/// no use to large ones.
fn above(operations: &[Operation], tokens: f64) -> f64 {
    let (mut freed, mut returned) = (0.0, 0.0);
    let mut most = 0f64;
    for operation in operations.iter().rev() {
        let working = bytes(operation.working, tokens);
        let room = if working < RETURNED { freed } else { returned };
        most = most.max(working - room);
        let kept = bytes(operation.kept, tokens);
        freed += kept;
        returned += if stays(kept) { 0.0 } else { kept };
    }
    most
}

/// Whether what an operation kept, commonly in one tensor, stays with the process when it is freed.
fn stays(bytes: f64) -> bool {
    bytes < RETURNED
}

/// Bytes of `operations` that stay with the process when they are freed.
fn left(operations: &[Operation], tokens: f64) -> f64 {
    let each = operations
        .iter()
        .map(|operation| bytes(operation.kept, tokens));
    each.filter(|bytes| stays(*bytes)).sum()
}
