//! A run that takes a second.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::mem::{Discriminant, discriminant};
use std::path::Path;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use burn::train::Interrupter;
use hybridnorm_core::{Decoder, DecoderConfig};
use hybridnorm_moe::{FeedForwardLayer, Router, SparseConfig};
use hybridnorm_train::checkpoint::{FORMAT, Snapshot, TrainingState};
use hybridnorm_train::data::{DataError, StepBatch};
use hybridnorm_train::engine::{
    BatchSource, Console, Diagnostics, Evaluation, Record, RunDir, StepRecord, TrainError,
    TrainRequest, TrainSummary, train,
};
use hybridnorm_train::guard::GuardState;
use hybridnorm_train::recipe::{ClipWarmup, Moments, OptimizerName};
use hybridnorm_train::run::{RunConfig, ScheduleConfig, TrainingConfig};

pub const VOCAB: usize = 32;

/// Tokens that depend on the step only.
pub struct Hashed {
    pub batch: usize,
    pub seq: usize,
}

impl BatchSource for Hashed {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        let mut x = step.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = |_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            // Skewed, so that there is something to learn.
            ((x >> 32) % VOCAB as u64).min((x >> 8) % VOCAB as u64) as u32
        };
        let tokens = (0..self.batch * (self.seq + 1)).map(next).collect();
        Ok(StepBatch::whole(tokens, self.batch))
    }

    fn identity(&self) -> Option<String> {
        Some(format!("hashed {}x{}", self.batch, self.seq))
    }
}

pub fn config(steps: u64, micro_batch: usize) -> RunConfig {
    RunConfig {
        data: Default::default(),
        evaluation: Default::default(),
        guard: Default::default(),
        training: TrainingConfig {
            steps,
            seq: 8,
            batch: 4,
            micro_batch,
            eval_every: 2.into(),
            update_ratio_every: 2.into(),
            checkpoint_every: 2.into(),
            ..Default::default()
        },
        schedule: ScheduleConfig {
            lr: 1e-2,
            ..Default::default()
        },
        optimizer: Default::default(),
        model: DecoderConfig {
            n_kv_heads: 1,
            max_seq_len: 16,
            ..DecoderConfig::new(VOCAB, 16, 2, 2)
        },
        sparse: None,
    }
}

/// A sparse model: four experts, two for each token.
pub fn sparse(steps: u64, micro_batch: usize) -> RunConfig {
    RunConfig {
        sparse: Some(SparseConfig::new(4, 2, 12)),
        ..config(steps, micro_batch)
    }
}

/// The sparse model with Muon for its matrices, and a limit on the gradient that moves through the whole run.
pub fn muon(steps: u64, micro_batch: usize) -> RunConfig {
    let mut config = sparse(steps, micro_batch);
    config.optimizer.name = OptimizerName::Muon;
    config.optimizer.clip_warmup = Some(ClipWarmup {
        from: 0.1,
        tokens: steps * config.training.tokens_per_step(),
    });
    config
}

/// Puts a checkpoint of step 0 into `dir`, with initial weights as `change` makes them: what a run resumes from.
pub fn begin_with(
    config: &RunConfig,
    dir: &Path,
    device: &Device,
    change: impl FnOnce(&mut Decoder<FeedForwardLayer>),
) {
    let run = RunDir::create(dir, config).unwrap();
    let mut model = config.model_config().init(device).unwrap();
    change(&mut model);
    let snapshot = Snapshot {
        model: &model,
        moments: &Moments::default(),
        config: run.config(),
    };
    let state = TrainingState {
        format: FORMAT,
        step: 0,
        tokens: 0,
        optimizer_steps: 0,
        elapsed_s: 0.0,
        config_blake3: String::new(),
        data: None,
        guard: GuardState::default(),
        program: "test".to_string(),
    };
    run.checkpoints().save(&snapshot, &state).unwrap();
}

/// The router of a layer that has one.
pub fn router(model: &mut Decoder<FeedForwardLayer>, layer: usize) -> &mut Router {
    match &mut model.blocks[layer].feed_forward {
        FeedForwardLayer::Sparse(sparse) => &mut sparse.router,
        FeedForwardLayer::Dense(_) => panic!("layer {layer} is dense"),
    }
}

/// What a run showed and can be searched.
#[derive(Clone, Default)]
pub struct Screen(Arc<Mutex<Vec<u8>>>);

impl Screen {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn request(config: RunConfig, dir: &Path, device: &Device, resume: bool) -> TrainRequest {
    let batches = Hashed {
        batch: config.training.batch,
        seq: config.training.seq,
    };
    TrainRequest {
        config,
        run_dir: dir.to_path_buf(),
        device: device.clone(),
        replicas: Vec::new(),
        resume,
        allow: Vec::new(),
        max_time: None,
        batches: Arc::new(batches),
        evaluate: Some(Box::new(|_, _| {
            Ok(Evaluation {
                nats_per_token: 2.0,
                bits_per_byte: 3.0,
            })
        })),
        interrupter: Interrupter::new(),
        console: Console::silent(),
        tensorboard: false,
        utilization: None,
    }
}

pub fn run(
    config: RunConfig,
    dir: &Path,
    device: &Device,
    resume: bool,
) -> Result<TrainSummary, TrainError> {
    train(request(config, dir, device, resume))
}

/// Trains, but is stopped in the evaluation after step `at`, as Ctrl-C would.
pub fn run_until(
    config: RunConfig,
    dir: &Path,
    device: &Device,
    at: u64,
) -> Result<TrainSummary, TrainError> {
    train(stopping(request(config, dir, device, false), at))
}

/// The same run, but stopped after step `at`.
pub fn stopping(mut request: TrainRequest, at: u64) -> TrainRequest {
    let source = StopAt {
        inner: request.batches.clone(),
        interrupter: request.interrupter.clone(),
        at,
    };
    request.batches = Arc::new(source);
    request
}

/// Asks for a stop when the batch of step `at` (counted from 1) is fetched.
struct StopAt {
    inner: Arc<dyn BatchSource>,
    interrupter: Interrupter,
    at: u64,
}

impl BatchSource for StopAt {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        if step + 1 == self.at {
            self.interrupter.stop(Some("test"));
        }
        self.inner.batch(step)
    }

    fn identity(&self) -> Option<String> {
        self.inner.identity()
    }
}

/// BLAKE3 of a file of a generation.
pub fn hash(run: &Path, step: u64, file: &str) -> String {
    let path = run.join(format!("checkpoints/step-{step}")).join(file);
    blake3::hash(&fs::read(path).unwrap()).to_hex().to_string()
}

pub fn records(run: &Path) -> Vec<Record> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// What kind each record is, and of which step.
pub fn outline(run: &Path) -> Vec<(u64, Discriminant<Record>)> {
    let of = |record: &Record| (record.step(), discriminant(record));
    records(run).iter().map(of).collect()
}

/// The record of every step.
pub fn step_records(run: &Path) -> Vec<StepRecord> {
    let step = |record| match record {
        Record::Step(record) => Some(record),
        _ => None,
    };
    records(run).into_iter().filter_map(step).collect()
}

/// What was recorded of the layers.
pub fn diagnostics(run: &Path) -> Vec<Diagnostics> {
    let found = |record| match record {
        Record::Diagnostics(record) => Some(*record),
        _ => None,
    };
    records(run).into_iter().filter_map(found).collect()
}

/// (step, loss bits, gradient norm bits, learning rate bits) of every step.
pub fn steps(run: &Path) -> Vec<(u64, u64, u64, u64)> {
    let bits = |r: StepRecord| {
        (
            r.step,
            r.loss.to_bits(),
            r.grad_norm.to_bits(),
            r.lr.to_bits(),
        )
    };
    step_records(run).into_iter().map(bits).collect()
}

/// The tensors of a file of a generation, by name.
pub fn tensors(run: &Path, step: u64, file: &str) -> BTreeMap<String, Vec<f32>> {
    let path = run.join(format!("checkpoints/step-{step}")).join(file);
    let bytes = fs::read(path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let floats = |data: &[u8]| {
        let chunks = data.as_chunks::<4>().0.iter();
        chunks.map(|bytes| f32::from_le_bytes(*bytes)).collect()
    };
    tensors
        .iter()
        .map(|(name, tensor)| (name.to_string(), floats(tensor.data())))
        .collect()
}
