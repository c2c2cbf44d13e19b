//! `import`: a published model into a run directory.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use hybridnorm_interop::Pretrained;

use super::published::Published;
use crate::device::DeviceSpec;
use crate::engine::peak_memory;
use crate::error::Error;
use crate::hub;
use crate::import::import;
use crate::memory::in_words;
use crate::model::refuse_run;
use crate::shell::word;

/// The flags of `import`.
#[derive(Debug, Clone, Args)]
pub struct ImportFlags {
    /// A Hugging Face folder: config.json, and model.safetensors in one file or several (`plan --hf DIR` shows what it is); or
    /// `hf:owner/name[@revision]` on the Hub
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The new run directory
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A tokenizer.json instead of the folder's own
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Where the model is put together [default: the best compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceSpec>,
}

pub(super) fn run(flags: &ImportFlags, out: &mut impl Write) -> Result<(), Error> {
    let device = flags.device.clone().map_or_else(DeviceSpec::best, Ok)?;
    let folder = hub::resolve(&flags.folder)?;
    refuse_run(&folder)?;
    let folder = Pretrained::open(folder)?;
    write!(out, "{}", Published::of(&folder)).map_err(Error::Output)?;
    let run = &flags.out;
    let tokenizer = flags.tokenizer.as_deref();
    let imported = import(&folder, run, tokenizer, &device.open()?)?;
    for warning in &imported.warnings {
        // Where standard error is gone, the run is what counts.
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    let tokens = imported.tokenizer.vocab_size();
    writeln!(
        out,
        "tokenizer {} ({tokens} tokens)",
        imported.config.data.tokenizer
    )
    .map_err(Error::Output)?;
    if let Some(peak) = peak_memory() {
        let weights = folder.config().num_params()?.0 as u64 * 4;
        writeln!(
            out,
            "memory    {} at most, for {} of weights in f32",
            in_words(peak),
            in_words(weights)
        )
        .map_err(Error::Output)?;
    }
    let run = word(run);
    writeln!(
        out,
        "output    {}\n\nhybridnorm-train generate --model {run} --prompt TEXT\n\
         hybridnorm-train train --resume --out {run} --data FILE --steps N",
        imported.checkpoint.display()
    )
    .map_err(Error::Output)
}
