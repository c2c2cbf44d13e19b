//! `prepare`: text into token shards.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::amount::count;
use crate::data::{
    DEFAULT_MAX_DOCUMENT_BYTES, DEFAULT_SHARD_TOKENS, Index, Preparation, Progress, Side,
    Tokenizer, VALIDATION_FRACTION,
};
use crate::error::Error;
use crate::shell::word;
use crate::sizes::{counted, thousands};

/// The flags of `prepare`.
#[derive(Debug, Clone, Args)]
pub struct PrepareFlags {
    /// Files, directories and patterns: .txt .md .jsonl (field `text`), each also as .gz or .zst, and .parquet (column `text`)
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The folder to write; one that an earlier call left unfinished is continued
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// `byte`, or the path of a Hugging Face tokenizer.json (`tokenizer train` makes one)
    #[arg(long, value_name = "byte|FILE", default_value = "byte")]
    tokenizer: String,
    /// Share of the documents, by the hash of their text, to hold out for validation; 0 for none
    #[arg(long, value_name = "FRACTION", default_value_t = VALIDATION_FRACTION)]
    validation: f64,
    /// Keep only the first of documents with the same text; 20 to 40 bytes of memory per document
    #[arg(long)]
    deduplicate: bool,
    /// Threads that tokenize [default: as many as the machine runs at once]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Tokens of a shard: 128M, 1.5B; a call that was cut off is continued after the last whole shard
    #[arg(long, value_name = "N", value_parser = whole, default_value_t = DEFAULT_SHARD_TOKENS)]
    shard_tokens: u64,
    /// Bytes that a document may have; a longer one ends the call
    #[arg(long, value_name = "N", value_parser = whole, default_value_t = DEFAULT_MAX_DOCUMENT_BYTES as u64)]
    max_document_bytes: u64,
}

fn whole(text: &str) -> Result<u64, String> {
    count(text).ok_or_else(|| "expected a whole number: 1000000, 1M, 1.5B".to_string())
}

pub(super) fn run(flags: &PrepareFlags, out: &mut impl Write) -> Result<(), Error> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let preparation = Preparation {
        inputs: flags.inputs.clone(),
        out: flags.out.clone(),
        tokenizer: Tokenizer::from_spec(&flags.tokenizer)?,
        validation_fraction: flags.validation,
        deduplicate: flags.deduplicate,
        shard_tokens: flags.shard_tokens,
        max_document_bytes: usize::try_from(flags.max_document_bytes).unwrap_or(usize::MAX),
        workers: flags.workers.unwrap_or_else(cores),
    };
    let mut display = Display::new();
    let index = preparation.run(&mut |progress| display.show(progress))?;
    let speed = display.finish();
    write!(out, "{}", Summary(&index, &flags.out)).map_err(Error::Output)?;
    match speed {
        Some(speed) => writeln!(out, "{} tokens/s", thousands(speed as u64)),
        None => writeln!(out, "it was prepared before: nothing was written"),
    }
    .map_err(Error::Output)
}

/// A bar on a terminal, nothing elsewhere; and the speed.
struct Display {
    bar: ProgressBar,
    start: Instant,
    first: Option<Progress>,
    last: Progress,
}

impl Display {
    fn new() -> Self {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new(0)
        } else {
            ProgressBar::hidden()
        };
        let template = "{bar:30} {percent:>3} % of {total_bytes}, {eta} to go  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            start: Instant::now(),
            first: None,
            last: Progress::default(),
        }
    }

    fn show(&mut self, progress: Progress) {
        self.first.get_or_insert(progress);
        self.last = progress;
        self.bar.set_length(progress.bytes_total);
        self.bar
            .set_position(progress.bytes_read.min(progress.bytes_total));
        let message = format!(
            "{} tokens, {:.0} tokens/s",
            thousands(progress.tokens),
            self.speed().unwrap_or(0.0)
        );
        self.bar.set_message(message);
    }

    /// Tokens per second of this call; none where nothing was left to do.
    fn speed(&self) -> Option<f64> {
        let fresh = self.last.tokens - self.first?.tokens;
        Some(fresh as f64 / self.start.elapsed().as_secs_f64())
    }

    fn finish(&self) -> Option<f64> {
        self.bar.finish_and_clear();
        self.speed()
    }
}

struct Summary<'a>(&'a Index, &'a Path);

impl core::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self(index, dir) = self;
        for (name, side) in [("training", Side::Train), ("validation", Side::Validation)] {
            let [tokens, documents, bytes] = index.totals(side);
            writeln!(
                f,
                "{name:<10} {} ({}) in {}, {}",
                counted(tokens, "token"),
                counted(bytes, "byte"),
                counted(documents, "document"),
                counted(index.side(side).len() as u64, "shard"),
            )?;
        }
        if let Some(duplicates) = index.duplicates {
            let duplicates = counted(duplicates, "document");
            writeln!(f, "left out   {duplicates} that had come before")?;
        }
        if index.blank > 0 {
            writeln!(f, "left out   {}", counted(index.blank, "blank document"))?;
        }
        let shown = dir.display();
        writeln!(f, "in {shown}: hybridnorm-train --data {}", word(dir))
    }
}
