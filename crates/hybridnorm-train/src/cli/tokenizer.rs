//! `tokenizer train`: a tokenizer from text.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::data::{DEFAULT_MAX_DOCUMENT_BYTES, TokenizerTraining};
use crate::error::Error;
use crate::sizes::thousands;

/// What can be done with a tokenizer.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenizerCommand {
    /// Learn a byte-level BPE tokenizer from text
    Train(TokenizerTrainFlags),
}

/// The flags of `tokenizer train`.
#[derive(Debug, Clone, Args)]
pub struct TokenizerTrainFlags {
    /// Files, directories and patterns, as for `prepare`
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Ids it may have
    #[arg(long, value_name = "N")]
    vocab: usize,
    /// The file to write
    #[arg(long, value_name = "FILE", default_value = "tokenizer.json")]
    out: PathBuf,
    /// Share of the documents to learn from, by hash: distinct words stay in memory, and a huge corpus has many
    #[arg(long, value_name = "FRACTION", default_value_t = 1.0)]
    sample: f64,
}

pub(super) fn run(command: &TokenizerCommand, out: &mut impl Write) -> Result<(), Error> {
    let TokenizerCommand::Train(flags) = command;
    let training = TokenizerTraining {
        inputs: flags.inputs.clone(),
        vocab: flags.vocab,
        sample: flags.sample,
        max_document_bytes: DEFAULT_MAX_DOCUMENT_BYTES,
    };
    let mut bytes = 0;
    let tokenizer = training.run(&flags.out, &mut |read| bytes += read)?;
    writeln!(
        out,
        "{} ids from {} bytes of text, in {}",
        thousands(tokenizer.vocab_size() as u64),
        thousands(bytes),
        flags.out.display()
    )
    .map_err(Error::Output)
}
