//! A published model becomes a run that has not taken a step: what `generate` reads, and `train --resume` continues from.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_interop::Pretrained;
use hybridnorm_moe::ModelConfig;

use crate::checkpoint::{FORMAT, Snapshot, TrainingState};
use crate::data::Tokenizer;
use crate::engine::RunDir;
use crate::error::Error;
use crate::generate::fits;
use crate::guard::GuardState;
use crate::recipe::Moments;
use crate::run::{DataConfig, RunConfig, ScheduleConfig, TrainingConfig};
use crate::stored::Published;

const TOKENIZER: &str = "tokenizer.json";
/// Files beside a tokenizer that say how it is used.
const BESIDE: [&str; 4] = [
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
];
/// Sequences of further training where nobody says otherwise: shorter than what most models can take.
const SEQ: usize = 1024;
/// And its learning rate: trained models want a low one.
const LR: f64 = 1e-5;

/// What became of an import.
#[derive(Debug)]
pub struct Import {
    /// The new run's configuration.
    pub config: RunConfig,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its checkpoint.
    pub checkpoint: PathBuf,
    /// What is not as one would wish, each a sentence.
    pub warnings: Vec<String>,
}

/// Makes the run directory `out` of a published model: configuration, checkpoint `step-0`, tokenizer. `tokenizer` is taken instead of the
/// folder's own.
///
/// # Errors
/// When tensors do not fit, a tokenizer has more tokens than the model, `out` holds anything, or the disk fails; nothing is left behind.
pub fn import(
    folder: &Pretrained,
    out: &Path,
    tokenizer: Option<&Path>,
    device: &Device,
) -> Result<Import, Error> {
    folder.check(device)?;
    RunDir::probe(out)?;
    let file = tokenizer
        .map(Path::to_path_buf)
        .or_else(|| folder.tokenizer());
    let mut warnings = Vec::new();
    let tokenizer = match &file {
        Some(file) => Tokenizer::from_file(file)?,
        None => Tokenizer::Byte,
    };
    let model = folder.config();
    let rows = model.decoder.padded_vocab_size;
    match &file {
        Some(_) => warnings.extend(fits(&tokenizer, rows)?),
        None => warnings.push(format!(
            "{} has no {TOKENIZER}: text is taken byte by byte, which no published model was trained on; give --tokenizer FILE",
            folder.dir().display()
        )),
    }
    let published = Published {
        folder: folder.dir().display().to_string(),
        model_type: folder.architecture().model_type.to_string(),
        config: Pretrained::describe(folder.dir())?.0,
        generation: Published::generation_of(folder.dir())?,
    };
    let model_on_device = folder.load(device)?;

    let existed = out.is_dir();
    let write = || {
        fs::create_dir_all(out).map_err(Error::io("create", out))?;
        let out = out.canonicalize().map_err(Error::io("find", out))?;
        let name = match &file {
            Some(_) => out.join(TOKENIZER).display().to_string(),
            None => tokenizer.name(),
        };
        let config = run_of(folder.config(), name);
        config.validate()?;
        let run = RunDir::create(&out, &config)?;
        if let Some(file) = &file {
            copy(file, &out.join(TOKENIZER))?;
            let beside = BESIDE.iter().map(|name| (file.with_file_name(name), name));
            for (from, name) in beside.filter(|(from, _)| from.is_file()) {
                copy(&from, &out.join(name))?;
            }
        }
        published.write(&out)?;
        let state = TrainingState {
            format: FORMAT,
            step: 0,
            tokens: 0,
            optimizer_steps: 0,
            elapsed_s: 0.0,
            config_blake3: blake3::hash(run.config().as_bytes()).to_hex().to_string(),
            data: None,
            guard: GuardState::default(),
            program: env!("CARGO_PKG_VERSION").to_string(),
        };
        let snapshot = Snapshot {
            model: &model_on_device,
            moments: &Moments::default(),
            config: run.config(),
        };
        let generation = run.checkpoints().save(&snapshot, &state)?;
        Ok((config, generation.dir))
    };
    match write() {
        Ok((config, checkpoint)) => Ok(Import {
            config,
            tokenizer,
            checkpoint,
            warnings,
        }),
        Err(error) => {
            // The error is the one to report.
            if !existed {
                let _ = fs::remove_dir_all(out);
            }
            Err(error)
        }
    }
}

/// The run that continues with `model`; it speaks of no data.
pub fn run_of(model: &ModelConfig, tokenizer: String) -> RunConfig {
    RunConfig {
        evaluation: Default::default(),
        data: DataConfig {
            tokenizer,
            ..DataConfig::default()
        },
        training: TrainingConfig {
            seq: SEQ.min(model.decoder.max_seq_len),
            micro_batch: 1,
            ..TrainingConfig::default()
        },
        guard: crate::guard::GuardConfig::default(),
        schedule: ScheduleConfig {
            lr: LR,
            ..ScheduleConfig::default()
        },
        optimizer: crate::recipe::OptimizerConfig::default(),
        model: model.decoder.clone(),
        sparse: model.sparse.clone(),
    }
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    fs::copy(from, to)
        .map(drop)
        .map_err(Error::io("copy", from))
}
