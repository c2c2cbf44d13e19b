//! The run that flags stand for.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hybridnorm_core::{ConfigError, InitScheme, Placement};

use super::batch::Sizes;
use super::flags::RunFlags;
use super::preset_run::{DEFAULT_PRESET, preset_run};
use super::sources::Sources;
use crate::amount::Amount;
use crate::data::{DEFAULT_MAX_BYTES, Tokenizer};
use crate::device::DeviceSpec;
use crate::engine::stored_config;
use crate::error::Error;
use crate::generate::fits;
use crate::presets;
use crate::recipe::{OptimizerName, ScheduleShape};
use crate::run::{BadConfig, RunConfig};

/// Rows of the embedding are a multiple of this, which matrix units like.
const VOCAB_MULTIPLE: usize = 64;
/// Where runs go that name no directory.
const RUNS: &str = "runs";
/// Most text the default corpus holds.
pub(super) const DEFAULT_CORPUS_BYTES: u64 = DEFAULT_MAX_BYTES;

/// What the flags stand for: valid, but for the data.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub config: RunConfig,
    pub device: DeviceSpec,
    /// The other devices of a run on several.
    pub replicas: Vec<DeviceSpec>,
    pub tokenizer: Tokenizer,
    /// Where the data was prepared before.
    pub sources: Option<Sources>,
    pub out: PathBuf,
    pub resume: bool,
    pub allow: Vec<String>,
    pub max_time: Option<Duration>,
    pub tensorboard: bool,
    pub tui: bool,
    pub ignore_memory: bool,
    /// The preset, where the model is one.
    pub preset: Option<&'static str>,
}

impl Request {
    /// Every device of the run, as `--devices` takes them.
    pub fn device_names(&self) -> String {
        let all = std::iter::once(&self.device).chain(&self.replicas);
        all.map(DeviceSpec::to_string).collect::<Vec<_>>().join(",")
    }
}

impl RunFlags {
    /// Resolves and validates everything that needs no data.
    pub(super) fn resolve(&self) -> Result<Request, Error> {
        let (device, replicas) = self.devices.resolve()?;
        let placement: Option<Placement> = self.placement.as_deref().map(str::parse).transpose()?;
        let init: Option<InitScheme> = self.init.as_deref().map(str::parse).transpose()?;
        let schedule: Option<ScheduleShape> =
            self.schedule.as_deref().map(str::parse).transpose()?;
        let optimizer: Option<OptimizerName> =
            self.optimizer.as_deref().map(str::parse).transpose()?;
        let preset = presets::find(self.base.preset.as_deref().unwrap_or(DEFAULT_PRESET))?;
        let base = match &placement {
            Some(placement) => placement.clone(),
            None => preset.model.decoder.placement.clone(),
        };
        let name = match &self.base.config {
            Some(file) => stem(file),
            None => directory_name(preset.name, &base),
        };
        let out = match (&self.out, self.resume) {
            (Some(out), _) => out.clone(),
            (None, true) => latest(&name),
            (None, false) => unused(&name),
        };
        let (mut config, from_preset) = match (&self.base.config, self.resume) {
            (_, true) => (stored_config(&out)?, false),
            (Some(file), false) => (read(file)?, false),
            (None, false) => (preset_run(&preset), true),
        };
        let from_preset = from_preset || self.base.preset.is_some();
        if self.base.preset.is_some() {
            config.model = preset.model.decoder.clone();
            config.sparse = preset.model.sparse.clone();
        }
        if let Some(placement) = placement {
            config.model.placement = placement;
        }
        if let Some(init) = init {
            config.model.init.scheme = Some(init);
        }
        if let Some(shape) = schedule {
            config.schedule.reshape(shape);
        }
        if let Some(name) = optimizer {
            config.optimizer.rename(name);
        }
        self.overlay(&mut config)?;
        if !self.resume {
            config.spell_out();
        }
        config.data.validate()?;
        let (sources, tokenizer) = Sources::open(&mut config.data)?;
        set_vocabulary(
            &mut config,
            &tokenizer,
            from_preset || self.base.tokenizer.is_some(),
        )?;
        config.validate()?;
        Ok(Request {
            config,
            device,
            replicas,
            tokenizer,
            sources,
            out,
            resume: self.resume,
            allow: self.allow.clone(),
            max_time: self.max_time,
            tensorboard: self.tensorboard,
            tui: self.tui,
            ignore_memory: self.ignore_memory,
            preset: from_preset.then_some(preset.name),
        })
    }

    /// Puts the flags over a configuration.
    fn overlay(&self, config: &mut RunConfig) -> Result<(), ConfigError> {
        fn set<T: Clone>(field: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                *field = value.clone();
            }
        }
        let training = &mut config.training;
        set(&mut training.steps, &self.steps);
        let sizes = Sizes {
            batch: self.base.batch,
            micro_batch: self.micro_batch,
            accumulation: self.accumulation,
            devices: self.devices.count(),
        };
        sizes.overlay(training)?;
        set(&mut training.precision, &self.precision);
        set(&mut training.recompute, &self.recompute);
        training.logit_rows = self.logit_rows.or(training.logit_rows);
        set(&mut training.eval_every, &self.eval_every);
        set(&mut training.diagnostics_every, &self.diagnostics);
        set(&mut training.checkpoint_every, &self.checkpoint_every);
        set(&mut training.keep_checkpoints, &self.keep);
        set(&mut training.keep_every, &self.keep_every);
        set(&mut config.guard.spike, &self.on_spike);
        set(&mut config.guard.non_finite, &self.on_non_finite);
        if let Some(seed) = self.base.seed {
            training.seed = seed;
            config.model.init.seed = seed;
        }
        if let Some(seq) = self.base.seq {
            training.seq = seq;
            // Positions are rotations, so a model takes any length; this one is asked for by name.
            config.model.max_seq_len = config.model.max_seq_len.max(seq);
        }
        if let Some(tokens) = self.tokens {
            training.steps = Amount::Tokens(tokens).in_steps(training.tokens_per_step());
        }
        set(&mut config.schedule.lr, &self.base.lr);
        if self.warmup_tokens.is_some() {
            config.schedule.warmup_tokens = self.warmup_tokens;
        }
        if self.base.data.is_some() {
            config.data.path = self.base.data.clone();
            config.data.sources.clear();
        }
        set(&mut config.data.tokenizer, &self.base.tokenizer);
        Ok(())
    }
}

/// The model's vocabulary is the tokenizer's where nobody has chosen it, and holds it otherwise.
fn set_vocabulary(
    config: &mut RunConfig,
    tokenizer: &Tokenizer,
    follow: bool,
) -> Result<(), ConfigError> {
    let size = tokenizer.vocab_size();
    let model = &mut config.model;
    if follow {
        model.vocab_size = size;
        model.padded_vocab_size = size.next_multiple_of(VOCAB_MULTIPLE);
    } else if fits(tokenizer, model.vocab_size).is_err() {
        let allowed = format!(
            "at least the {size} tokens of tokenizer {}",
            tokenizer.name()
        );
        return Err(ConfigError::new(
            "model.vocab_size",
            model.vocab_size,
            allowed,
        ));
    }
    Ok(())
}

fn read(file: &Path) -> Result<RunConfig, Error> {
    let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
    RunConfig::from_toml(&text).map_err(|BadConfig { line, reason }| Error::ConfigFile {
        path: file.to_path_buf(),
        line,
        reason,
    })
}

pub(super) fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or(file.as_os_str());
    stem.to_string_lossy().into_owned()
}

fn directory_name(preset: &str, placement: &Placement) -> String {
    let placement = placement.row().map_or("custom", |row| row.name);
    format!("{preset}-{placement}")
}

/// `runs/NAME`, `runs/NAME-2`, `runs/NAME-3`, …
fn numbered(name: &str) -> impl Iterator<Item = PathBuf> + '_ {
    let runs = Path::new(RUNS);
    let first = std::iter::once(runs.join(name));
    first.chain((2u64..).map(move |n| runs.join(format!("{name}-{n}"))))
}

/// The first default directory that does not exist yet.
fn unused(name: &str) -> PathBuf {
    numbered(name)
        .find(|path| !path.exists())
        .unwrap_or_else(|| Path::new(RUNS).join(name))
}

/// The last default directory that exists, or the first of all.
fn latest(name: &str) -> PathBuf {
    numbered(name)
        .take_while(|path| path.exists())
        .last()
        .unwrap_or_else(|| Path::new(RUNS).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::BaseFlags;

    #[test]
    fn a_budget_in_tokens_is_rounded_up_to_steps() {
        let flags = RunFlags {
            tokens: Some(1_500_000),
            base: BaseFlags {
                seq: Some(1000),
                batch: Some(7),
                ..BaseFlags::default()
            },
            ..RunFlags::default()
        };
        let training = flags.resolve().unwrap().config.training;
        // 1,500,000 / 7,000 = 214.3.
        assert_eq!(training.steps, 215);
    }

    #[test]
    fn the_demo_follows_its_tokenizer() {
        let request = RunFlags::default().resolve().unwrap();
        assert_eq!(request.config.model.vocab_size, 257);
        assert_eq!(request.config.model.padded_vocab_size, 320);
        assert_eq!(request.preset, Some("demo"));
    }

    #[test]
    fn flags_override_the_preset() {
        let flags = RunFlags {
            base: BaseFlags {
                preset: Some("151m".to_string()),
                seq: Some(8192),
                batch: Some(12),
                seed: Some(7),
                ..BaseFlags::default()
            },
            placement: Some("pre".to_string()),
            ..RunFlags::default()
        };
        let config = flags.resolve().unwrap().config;
        assert_eq!(config.model.placement.to_string(), "pre");
        assert_eq!(
            (config.training.seq, config.model.max_seq_len),
            (8192, 8192)
        );
        assert_eq!(config.training.micro_batch, 6);
        assert_eq!((config.training.seed, config.model.init.seed), (7, 7));
        assert_eq!(config.schedule.lr, 3e-4);
    }
}
