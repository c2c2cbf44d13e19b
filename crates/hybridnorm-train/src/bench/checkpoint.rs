//! The time of saving a run's state, and of reading it back.

use core::fmt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor};
use hybridnorm_core::ConfigError;
use hybridnorm_moe::ModelConfig;
use serde::Serialize;

use super::machine::{self, Peak};
use super::spread::Spread;
use super::step::StepBench;
use crate::checkpoint::{CheckpointError, CheckpointStore, FORMAT, Snapshot, TrainingState};
use crate::device::{DeviceSpec, adapter_name};
use crate::engine::{LanguageModel, TokenBatch};
use crate::error::Error;
use crate::guard::GuardState;
use crate::recipe::{Optimizer, OptimizerConfig};
use crate::sizes::Parameters;

const MIB: f64 = (1u64 << 20) as f64;

/// Saving and restoring weights and both moments of AdamW, by the rules of `torch_checkpoint.py`, the PyTorch yardstick: timed is a save from
/// the device until the files and their folder are on the disk, and a restore until the tensors are on the device. Hashing, which only
/// ours does, is part of both.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointBench {
    /// The model, dense or sparse.
    pub model: ModelConfig,
    /// Saves, and as many restores.
    pub saves: usize,
    /// The folder to write into; what is written is removed again.
    pub dir: PathBuf,
}

impl Default for CheckpointBench {
    fn default() -> Self {
        Self {
            model: StepBench::default().model,
            saves: 5,
            dir: PathBuf::from("."),
        }
    }
}

/// The figures of saving and restoring. Fields that `torch_checkpoint.py` prints too have its names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointReport {
    /// What was measured: `checkpoint`.
    pub bench: &'static str,
    /// Program and version.
    pub engine: &'static str,
    /// The device, as it is typed.
    pub device: String,
    /// The hardware, as it names itself.
    pub device_name: String,
    /// Threads that CPU backends use.
    pub threads: Option<usize>,
    /// Parameters of the model.
    pub params: usize,
    /// Bytes of weights and moments: 12 for each parameter.
    pub bytes: u64,
    /// Saves measured.
    pub saves: usize,
    /// Milliseconds of a save, the median.
    pub save_ms: f64,
    /// Milliseconds of a restore, the median.
    pub restore_ms: f64,
    /// MiB of weights and moments that a save brings to the disk in a second.
    pub mib_per_s: f64,
    /// Most memory taken, in bytes; `None` where it is not known.
    pub peak_bytes: Option<u64>,
    /// What `peak_bytes` counts, or why it is not known.
    pub peak_bytes_is: &'static str,
}

impl CheckpointBench {
    /// Refuses what cannot be measured.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.model.validate()?;
        match self.saves {
            0 => Err(ConfigError::new("saves", 0, "at least 1")),
            _ => Ok(()),
        }
    }

    /// Measures it on `spec`.
    ///
    /// # Errors
    /// As [`validate`](Self::validate); when the device cannot be opened or fails, or the folder cannot be written.
    pub fn measure(&self, spec: &DeviceSpec) -> Result<CheckpointReport, Error> {
        self.validate()?;
        let device = spec.open()?;
        let [saves, restores] = self.times(&device)?;
        let params = Parameters::of(&self.model)?.total;
        let bytes = 12 * params as u64;
        let median = |times: &[f64]| Spread::of(times).map_or(f64::NAN, |spread| spread.median);
        let save_ms = median(&saves);
        let peak = Peak::of(spec, None);
        Ok(CheckpointReport {
            bench: "checkpoint",
            engine: concat!("hybridnorm ", env!("CARGO_PKG_VERSION")),
            device: spec.to_string(),
            device_name: adapter_name(&device),
            threads: machine::threads(),
            params,
            bytes,
            saves: self.saves,
            save_ms,
            restore_ms: median(&restores),
            mib_per_s: bytes as f64 / MIB / save_ms * 1e3,
            peak_bytes: peak.bytes,
            peak_bytes_is: peak.meaning,
        })
    }

    /// Milliseconds of every save and every restore.
    fn times(&self, device: &Device) -> Result<[Vec<f64>; 2], Error> {
        let (model, optimizer) = self.after_a_step(device)?;
        let plain = model.valid();
        let place = Place::within(&self.dir)?;
        let store = CheckpointStore::new(&place.0);
        let snapshot = Snapshot {
            model: &plain.decoder,
            moments: optimizer.moments(),
            config: "",
        };
        let (mut saves, mut restores) = (Vec::new(), Vec::new());
        for step in 1..=self.saves as u64 {
            let began = Instant::now();
            let generation = store.save(&snapshot, &state(step))?;
            saves.push(began.elapsed().as_secs_f64() * 1e3);
            let began = Instant::now();
            generation.verify()?;
            generation.load_weights(plain.decoder.clone())?;
            generation.load_moments(&plain.decoder, device)?;
            restores.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok([saves, restores])
    }

    /// A model whose parameters all have moments.
    fn after_a_step(&self, device: &Device) -> Result<(LanguageModel, Optimizer), Error> {
        let device = device.clone().autodiff();
        let model = LanguageModel::new(&self.model, &device)?;
        let mut optimizer = Optimizer::new(OptimizerConfig::default(), &model);
        let tokens = Tensor::<2, Int>::zeros([1, 9], &device);
        let gradients = model.loss(TokenBatch::new(tokens)).backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        let model = optimizer.step(model, gradients, 1e-4, 1.0);
        Ok((model, optimizer))
    }
}

/// A folder of this process, which goes with it.
struct Place(PathBuf);

impl Place {
    fn within(dir: &Path) -> Result<Self, Error> {
        let dir = dir.join(format!("bench-checkpoint-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(CheckpointError::io("create", &dir))?;
        Ok(Self(dir))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whoever measures sees what is left; there is no one to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn state(step: u64) -> TrainingState {
    TrainingState {
        format: FORMAT,
        step,
        tokens: 0,
        optimizer_steps: step,
        elapsed_s: 0.0,
        config_blake3: String::new(),
        data: None,
        guard: GuardState::default(),
        program: env!("CARGO_PKG_VERSION").to_string(),
    }
}

impl fmt::Display for CheckpointReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes as f64 / MIB;
        let rate = |ms: f64| mib / ms * 1e3;
        writeln!(f, "device       {} ({})", self.device, self.device_name)?;
        writeln!(
            f,
            "state        {mib:.1} MiB: weights and two moments of {} parameters",
            self.params
        )?;
        let (save, restore) = (self.save_ms, self.restore_ms);
        writeln!(
            f,
            "save         {save:.1} ms, to the disk: {:.0} MiB/s",
            rate(save)
        )?;
        writeln!(
            f,
            "restore      {restore:.1} ms, verified: {:.0} MiB/s",
            rate(restore)
        )
    }
}

#[cfg(test)]
mod tests {
    use hybridnorm_core::DecoderConfig;
    use hybridnorm_testing::{apply, every_device};

    use super::*;

    #[apply(every_device!)]
    fn nothing_is_left_behind(#[case] device: &Device) {
        let folder = tempfile::tempdir().unwrap();
        let bench = CheckpointBench {
            model: DecoderConfig::new(40, 16, 2, 2).into(),
            saves: 2,
            dir: folder.path().to_path_buf(),
        };
        let times = bench.times(device).unwrap();
        assert!(times.iter().all(|times| times.len() == 2), "{times:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let bench = CheckpointBench {
            dir: PathBuf::from("no/such/folder"),
            ..CheckpointBench::default()
        };
        let error = bench.measure(&DeviceSpec::best().unwrap()).unwrap_err();
        assert!(error.to_string().contains("no/such/folder"), "{error}");
        let none = CheckpointBench { saves: 0, ..bench };
        let error = none.measure(&DeviceSpec::best().unwrap()).unwrap_err();
        assert!(error.to_string().contains("saves"), "{error}");
    }
}
