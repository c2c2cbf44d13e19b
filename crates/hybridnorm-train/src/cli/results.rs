//! What a finished run shows and leaves behind.

use core::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::contents::Contents;
use super::ready::ReadyRun;
use crate::engine::{CHECKPOINTS, CONFIG, METRICS, SUMMARY, TrainSummary};
use crate::error::Error;
use crate::generate::{Event, Generator, Sampling, Settings};
use crate::json;
use crate::report::REPORT;
use crate::shell;
use crate::sizes::{Parameters, thousands};

/// Tokens of the sample.
const SAMPLE_TOKENS: usize = 240;
/// Characters of a validation document that a sample continues.
const PROMPT_CHARS: usize = 24;

/// The figures of a finished run: `summary.json`.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    run: String,
    device: String,
    placement: String,
    parameters: usize,
    /// Those that work on any one token; of a dense model, all.
    active_parameters: usize,
    data_blake3: String,
    steps: u64,
    /// Steps of this process.
    fresh_steps: u64,
    tokens: u64,
    /// Of this process, where a run was resumed.
    elapsed_s: f64,
    tokens_per_s: f64,
    peak_memory_bytes: Option<u64>,
    training_loss: Option<f64>,
    validation_loss: Option<f64>,
    bits_per_byte: BitsPerByte,
    checkpoint: Option<String>,
    sample: Sample,
}

/// Bits per byte of the same validation text.
#[derive(Debug, Serialize)]
struct BitsPerByte {
    model: Option<f64>,
    bigram: f64,
    unigram: f64,
    /// Bytes of the text that model, bigram and unigram are scored on: windows spread over the validation split.
    bytes: u64,
    /// zstd on the whole validation split, which it needs in one piece; of prepared data, on the text the model is scored on.
    zstd: f64,
    /// The same after it has read the training text, as the model has.
    zstd_after_training_text: f64,
    /// Bytes of the text that zstd is measured on.
    zstd_bytes: u64,
}

/// Text that the model wrote.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    prompt: String,
    text: String,
}

/// Lets the trained model continue a prompt: the beginning of a function where it has learnt Rust, otherwise that of
/// the validation text.
pub(super) fn sample(prepared: &ReadyRun, summary: &TrainSummary) -> Result<Sample, Error> {
    let config = &prepared.request.config;
    let of_crates = config.data.path.is_none() && config.data.sources.is_empty();
    let prompt = match of_crates {
        true => "fn ".to_string(),
        false => {
            let text = prepared.last.text();
            let text = String::from_utf8_lossy(&text);
            // A character has at most four bytes, and a token at least one; one more token begins the document.
            let chars = PROMPT_CHARS.min((config.training.seq - 1) / 4);
            text.trim_start().chars().take(chars).collect()
        }
    };
    let tokenizer = &prepared.request.tokenizer;
    let end = tokenizer.end_of_document()?;
    let mut ids = vec![end];
    ids.extend(tokenizer.encode(&prompt)?);
    ids.truncate(config.training.seq);
    let settings = Settings {
        tokens: SAMPLE_TOKENS,
        sampling: Sampling {
            seed: config.training.seed,
            ..Sampling::default()
        },
        ..Settings::default()
    };
    let generator = Generator {
        model: &summary.model.decoder,
        tokenizer,
        window: config.training.seq,
        ends: &[end],
    };
    let mut text = String::new();
    generator.run(&[ids], &settings, |_, event| {
        if let Event::Text(piece) = event {
            text += &piece;
        }
        true
    })?;
    Ok(Sample { prompt, text })
}

/// Which results a `summary.json` holds.
#[derive(PartialEq, Deserialize)]
struct Written {
    steps: u64,
    data_blake3: String,
}

impl Written {
    /// `None` where there is no such file, or it is no summary.
    fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

impl Results {
    pub(super) fn new(
        prepared: &ReadyRun,
        summary: &TrainSummary,
        (zstd, zstd_after_training_text): (f64, f64),
        sample: Sample,
    ) -> Result<Self, Error> {
        let request = &prepared.request;
        let parameters = Parameters::of(&request.config.model_config())?;
        let training = &request.config.training;
        let fresh = summary.steps - summary.resumed_from.unwrap_or(0);
        let fresh_tokens = fresh * training.tokens_per_step();
        let evaluation = summary.evaluation;
        Ok(Self {
            run: request.out.display().to_string(),
            device: request.device_names(),
            placement: request.config.model.placement.to_string(),
            parameters: parameters.total,
            active_parameters: parameters.active,
            data_blake3: prepared.data.hash.clone(),
            steps: summary.steps,
            fresh_steps: fresh,
            tokens: summary.tokens,
            elapsed_s: summary.elapsed_s,
            tokens_per_s: fresh_tokens as f64 / summary.elapsed_s,
            peak_memory_bytes: summary.peak_memory,
            training_loss: summary.loss,
            validation_loss: evaluation.map(|evaluation| evaluation.nats_per_token),
            bits_per_byte: BitsPerByte {
                model: evaluation.map(|evaluation| evaluation.bits_per_byte),
                bigram: prepared.yardsticks.bigram,
                unigram: prepared.yardsticks.unigram,
                bytes: prepared.last.bytes(),
                zstd,
                zstd_after_training_text,
                zstd_bytes: prepared.zstd_bytes,
            },
            checkpoint: summary
                .checkpoint
                .as_ref()
                .map(|path| path.display().to_string()),
            sample,
        })
    }

    /// Writes `summary.json`, whole or not at all. A finished run that is resumed keeps its own, with the speed that it had;
    /// one that was killed before it wrote any gets one.
    pub(super) fn save(&self, run: &Path) -> Result<(), Error> {
        let path = run.join(SUMMARY);
        match self.fresh_steps == 0 && Written::read(&path) == Some(self.written()) {
            true => Ok(()),
            false => json::save(self, &path),
        }
    }

    fn written(&self) -> Written {
        Written {
            steps: self.steps,
            data_blake3: self.data_blake3.clone(),
        }
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = &self.bits_per_byte;
        writeln!(f)?;
        if let Some(loss) = self.validation_loss {
            writeln!(f, "validation loss {loss:.4} nats per token")?;
        }
        writeln!(
            f,
            "bits per byte of validation text, lower is better ({} bytes; zstd: {} bytes in one piece):",
            thousands(bits.bytes),
            thousands(bits.zstd_bytes)
        )?;
        let rows = [
            ("this model", bits.model),
            ("bigram", Some(bits.bigram)),
            ("unigram", Some(bits.unigram)),
            ("zstd -19", Some(bits.zstd)),
            (
                "zstd -19 after the training text",
                Some(bits.zstd_after_training_text),
            ),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                writeln!(f, "    {name:<34}{value:>7.4}")?;
            }
        }
        writeln!(f, "\nsample, continuing {:?}:", self.sample.prompt)?;
        let text = format!("{}{}", self.sample.prompt, self.sample.text);
        for line in text.lines() {
            writeln!(f, "    {line}")?;
        }
        if self.fresh_steps > 0 {
            writeln!(
                f,
                "\n{} steps in {}, {:.0} tokens/s with evaluations and checkpoints",
                thousands(self.fresh_steps),
                duration(self.elapsed_s),
                self.tokens_per_s,
            )?;
        } else {
            writeln!(f, "\nall {} steps were done already", thousands(self.steps))?;
        }
        let contents = Contents {
            dir: Path::new(&self.run),
            files: &[
                (CONFIG, "the whole configuration, for --config"),
                (METRICS, "every step and evaluation"),
                (CHECKPOINTS, "weights and optimiser state, for --resume"),
                (SUMMARY, "these results"),
                (REPORT, "all of it in pictures, on one page"),
            ],
        };
        writeln!(
            f,
            "{contents}continue its text: hybridnorm-train generate --model {} --prompt TEXT",
            shell::word(Path::new(&self.run))
        )
    }
}

/// `2 h 05 min`, `3 min 07 s` or `4.2 s`.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s >= 3600.0 => format!("{} h {:02} min", s as u64 / 3600, s as u64 % 3600 / 60),
        s => format!("{} min {:02} s", s as u64 / 60, s as u64 % 60),
    }
}
