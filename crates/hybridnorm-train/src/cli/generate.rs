//! `generate`: text from a trained model.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use crate::checkpoint::{CheckpointStore, load_model};
use crate::data::Tokenizer;
use crate::device::DeviceSpec;
use crate::engine::{CHECKPOINTS, stored_config};
use crate::error::Error;
use crate::generate::{Request, Sampling, generate};
use hybridnorm_core::ConfigError;

/// The flags of `generate`.
#[derive(Debug, Clone, Args)]
pub struct GenerateFlags {
    /// The run directory; its newest whole checkpoint is used
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Text to continue; `-` reads it from standard input
    #[arg(long, value_name = "TEXT|-", default_value = "")]
    prompt: String,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    tokens: usize,
    /// Divides the logits; 0 always takes the most likely token
    #[arg(long, value_name = "T", allow_negative_numbers = true, default_value_t = Sampling::default().temperature)]
    temperature: f64,
    /// Keep only the N most likely tokens
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Keep only the most likely tokens that reach probability P together [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where to compute [default: the best compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

pub(super) fn run(flags: &GenerateFlags, out: &mut impl Write) -> Result<(), Error> {
    let sampling = Sampling {
        temperature: flags.temperature,
        top_k: flags.top_k,
        top_p: flags.top_p.or(Sampling::default().top_p),
        seed: flags.seed,
    };
    sampling.validate()?;
    let device = match &flags.device {
        Some(name) => name.parse::<DeviceSpec>()?,
        None => DeviceSpec::best()?,
    }
    .open()?;
    let config = stored_config(&flags.run)?;
    let tokenizer = Tokenizer::from_spec(&config.data.tokenizer)?;
    let store = CheckpointStore::new(flags.run.join(CHECKPOINTS));
    let newest = store.newest_whole()?;
    for (_, error) in &newest.skipped {
        // Where standard error is gone, the text is all there is to give.
        let _ = writeln!(io::stderr(), "warning: skipped: {error}");
    }
    let Some((generation, state)) = newest.generation else {
        let path = flags.run.clone();
        return Err(Error::NoCheckpoint { path });
    };
    let identity = tokenizer.identity();
    if state.data.is_some_and(|data| !data.contains(&identity)) {
        let field = "data.tokenizer";
        let allowed = "the tokenizer the run was trained with: the file has changed since";
        return Err(ConfigError::new(field, tokenizer.name(), allowed).into());
    }
    let model = load_model(&generation.dir, &config.model_config(), &device)?;
    let prompt = match flags.prompt.as_str() {
        "-" => read_prompt()?,
        text => text.to_string(),
    };
    let request = Request {
        prompt: &prompt,
        tokens: flags.tokens,
        sampling,
        window: config.training.seq,
    };
    let started = Instant::now();
    let mut written = write_now(out, &prompt);
    let tokens = generate(&model, &tokenizer, request, |piece| {
        if written.is_ok() {
            written = write_now(out, piece);
        }
        written.is_ok()
    })?;
    written
        .and_then(|()| writeln!(out))
        .map_err(Error::Output)?;
    let seconds = started.elapsed().as_secs_f64();
    // A report on the side: where it cannot be written, nobody is there to read it.
    let _ = writeln!(
        io::stderr(),
        "{tokens} tokens, {:.0} tokens/s",
        tokens as f64 / seconds
    );
    Ok(())
}

fn write_now(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn read_prompt() -> Result<String, Error> {
    let mut prompt = String::new();
    io::stdin()
        .read_to_string(&mut prompt)
        .map_err(Error::io("read", "standard input".as_ref()))?;
    Ok(prompt)
}
