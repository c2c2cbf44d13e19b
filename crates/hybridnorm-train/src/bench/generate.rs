//! The time of generating text.

use core::fmt;
use std::time::Instant;

use hybridnorm_core::ConfigError;
use hybridnorm_moe::ModelConfig;
use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::machine::{self, Peak};
use super::spread::Spread;
use super::step::StepBench;
use crate::device::{DeviceSpec, adapter_name};
use crate::error::Error;
use crate::generate::Texts;
use crate::sizes::Parameters;

/// Seed of the random prompts.
const SEED: u64 = 6198;

/// Greedy generation with a key/value cache, by the rules of `torch_generate.py`, the PyTorch yardstick: prompts of `seq` random tokens,
/// then `tokens` steps that give each of `batch` texts one token; timed are the steps, the choice of tokens on the host among them.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateBench {
    /// The model, dense or sparse.
    pub model: ModelConfig,
    /// Tokens of each prompt.
    pub seq: usize,
    /// Texts written side by side.
    pub batch: usize,
    /// Steps that are timed.
    pub tokens: usize,
    /// Steps before those, not timed.
    pub warmup: usize,
}

impl Default for GenerateBench {
    fn default() -> Self {
        Self {
            model: StepBench::default().model,
            seq: 16,
            batch: 1,
            tokens: 128,
            warmup: 8,
        }
    }
}

/// The figures of generation. Fields that `torch_generate.py` prints too have its names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenerateReport {
    /// What was measured: `generate`.
    pub bench: &'static str,
    /// Program and version.
    pub engine: &'static str,
    /// The device, as it is typed.
    pub device: String,
    /// The hardware, as it names itself.
    pub device_name: String,
    /// Threads that CPU backends use.
    pub threads: Option<usize>,
    /// Where the norms stand.
    pub placement: String,
    /// Tokens of each prompt.
    pub seq: usize,
    /// Texts written side by side.
    pub batch: usize,
    /// Steps timed.
    pub tokens: usize,
    /// Parameters of the model.
    pub params: usize,
    /// Milliseconds of a step, the median.
    pub step_ms: f64,
    /// Milliseconds that nine tenths of the steps stayed below.
    pub p90_ms: f64,
    /// Milliseconds of the prompts, one after the other, the first call of the process among them.
    pub prefill_ms: f64,
    /// Tokens generated over the time of all steps.
    pub tokens_per_s: f64,
    /// Most memory taken, in bytes; `None` where it is not known.
    pub peak_bytes: Option<u64>,
    /// What `peak_bytes` counts, or why it is not known.
    pub peak_bytes_is: &'static str,
}

impl GenerateBench {
    /// Refuses what cannot be measured.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.model.validate()?;
        for (field, value) in [
            ("seq", self.seq),
            ("batch", self.batch),
            ("tokens", self.tokens),
        ] {
            if !(1..=1 << 24).contains(&value) {
                return Err(ConfigError::new(field, value, "from 1 to 16777216"));
            }
        }
        if self.warmup > 1 << 24 {
            return Err(ConfigError::new("warmup", self.warmup, "at most 16777216"));
        }
        Ok(())
    }

    /// Measures it on `spec`.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); when the device cannot be opened or fails.
    pub fn measure(&self, spec: &DeviceSpec) -> Result<GenerateReport, Error> {
        self.validate()?;
        let device = spec.open()?;
        let model = self.model.init(&device)?;
        let vocab = self.model.decoder.padded_vocab_size;
        let room = self.seq + self.warmup + self.tokens;
        let mut texts = Texts::new(&model, room, room);
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut next = Vec::with_capacity(self.batch);
        let began = Instant::now();
        for _ in 0..self.batch {
            let ids = (0..self.seq).map(|_| (rng.next_u64() % vocab as u64) as u32);
            let logits = texts.begin(&ids.collect::<Vec<_>>())?;
            next.push(crate::generate::argmax(&logits) as u32);
        }
        let prefill_ms = began.elapsed().as_secs_f64() * 1e3;
        let mut times = Vec::with_capacity(self.tokens);
        for step in 0..self.warmup + self.tokens {
            let began = Instant::now();
            let logits = texts.step(&next)?;
            let chosen = logits
                .iter()
                .map(|logits| crate::generate::argmax(logits) as u32);
            next = chosen.collect();
            if step >= self.warmup {
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
        }
        let total: f64 = times.iter().sum();
        let spread = Spread::of(&times);
        let peak = Peak::of(spec, None);
        Ok(GenerateReport {
            bench: "generate",
            engine: concat!("hybridnorm ", env!("CARGO_PKG_VERSION")),
            device: spec.to_string(),
            device_name: adapter_name(&device),
            threads: machine::threads(),
            placement: self.model.decoder.placement.to_string(),
            seq: self.seq,
            batch: self.batch,
            tokens: self.tokens,
            params: Parameters::of(&self.model)?.total,
            step_ms: spread.map_or(f64::NAN, |spread| spread.median),
            p90_ms: spread.map_or(f64::NAN, |spread| spread.p90),
            prefill_ms,
            tokens_per_s: (self.batch * self.tokens) as f64 / total * 1e3,
            peak_bytes: peak.bytes,
            peak_bytes_is: peak.meaning,
        })
    }
}

impl fmt::Display for GenerateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            batch,
            seq,
            tokens,
            step_ms,
            p90_ms,
            prefill_ms,
            tokens_per_s,
            ..
        } = self;
        writeln!(f, "device       {} ({})", self.device, self.device_name)?;
        writeln!(
            f,
            "prompts      {batch} of {seq} tokens in {prefill_ms:.1} ms"
        )?;
        writeln!(
            f,
            "generation   {tokens} steps of {batch}, {step_ms:.3} ms each (median; p90 {p90_ms:.3})"
        )?;
        writeln!(f, "speed        {tokens_per_s:.0} tokens/s")
    }
}
