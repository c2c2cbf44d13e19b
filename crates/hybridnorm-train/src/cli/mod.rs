//! The command line: one file per subcommand. Each turns its flags into a validated configuration and calls the
//! library.
//!
//! Results go to standard output, progress and errors to standard error. An error is one line. Exit codes: 0 done,
//! 1 a failure while running, 2 something the user can put right, 3 a run whose `--max-time` is up and 130 one that was
//! interrupted, each with a checkpoint.

mod batch;
mod bench;
mod bench_checkpoint;
mod bench_generate;
mod bench_placements;
mod compare;
mod device_flags;
mod devices;
mod eval;
mod eval_table;
mod eval_texts;
mod export;
mod flags;
mod generate;
mod import;
mod inspect;
mod memory;
mod placements;
mod plan;
mod prepare;
mod preset_run;
mod probe;
mod probe_plan;
mod prompts;
mod published;
mod ready;
mod report;
mod results;
mod run_data;
mod serve_device;
mod shape_flags;
mod sources;
mod tokenizer;
mod train;
mod verify;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

pub use bench::{Bench, StepFlags};
pub use bench_checkpoint::CheckpointBenchFlags;
pub use bench_generate::GenerateBenchFlags;
pub use bench_placements::PlacementsFlags;
pub use compare::CompareFlags;
pub use device_flags::DeviceFlags;
pub use devices::{DevicesFlags, backends_page};
pub use eval::EvalFlags;
pub use export::ExportFlags;
pub use flags::RunFlags;
pub use generate::GenerateFlags;
pub use import::ImportFlags;
pub use inspect::InspectFlags;
pub use plan::PlanFlags;
pub use prepare::PrepareFlags;
pub use probe::ProbeFlags;
pub use report::ReportFlags;
pub use serve_device::ServeDeviceFlags;
pub use shape_flags::ShapeFlags;
pub use tokenizer::{TokenizerCommand, TokenizerTrainFlags};
pub use verify::VerifyFlags;

use crate::error::Error;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed while running; 2 wrong flags, configuration, data, checkpoint \
                          or directory; 3 out of --max-time, and 130 interrupted, each with a checkpoint to --resume from";

/// Trains transformer language models with any norm placement. Without a subcommand: train.
#[derive(Debug, Parser)]
#[command(name = "hybridnorm-train", version, args_conflicts_with_subcommands = true, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `train`, which is the default.
    #[command(flatten)]
    pub train: RunFlags,
    /// Compute norms, attention, activations and losses by the plain operations that define them: slow, and with other roundings
    #[arg(long, global = true)]
    pub reference_ops: bool,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model, or continue with --resume (the default)
    Train(Box<RunFlags>),
    /// Show what a run would be, without training
    Plan(Box<PlanFlags>),
    /// Measure placements in minutes, before any long run: gradients, activations and attention by layer and depth, the largest learning
    /// rate that does not diverge, what initialisation matters
    Probe(Box<ProbeFlags>),
    /// Train placements over several seeds on the same data, and say which is better: paired statistics, resumable run by run
    Compare(Box<CompareFlags>),
    /// Write one HTML page of a run, a comparison or a probe, in progress or not; pictures and numbers as files
    Report(ReportFlags),
    /// Turn text into token shards, which --data takes; continue where an earlier call was cut off
    Prepare(PrepareFlags),
    /// Make a tokenizer
    #[command(subcommand)]
    Tokenizer(TokenizerCommand),
    /// Turn a published model (a Hugging Face folder) into a run: to generate with, evaluate, and train on
    Import(ImportFlags),
    /// Continue a prompt with a trained model
    Generate(GenerateFlags),
    /// Write a trained model as a folder that Hugging Face transformers loads
    Export(ExportFlags),
    /// Measure a trained model: perplexity of texts, multiple-choice questions
    Eval(Box<EvalFlags>),
    /// Check a run directory: which checkpoints are whole, and what --resume would continue from
    Inspect(InspectFlags),
    /// Certify a device against the authors' numbers and against flex: forward, every gradient, a 20-step trajectory
    Verify(VerifyFlags),
    /// List the devices: what is compiled in, what was found, and what to do about the rest
    Devices(DevicesFlags),
    /// Host devices of this machine for runs elsewhere, until interrupted (Cargo feature `remote`)
    ServeDevice(ServeDeviceFlags),
    /// Measure how fast this machine computes, and in how much memory
    #[command(subcommand, arg_required_else_help = false)]
    Bench(Bench),
    /// List every norm placement with its equations, and every preset
    Placements,
}

/// Runs the program with `args`, its own name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let out = &mut io::stdout();
    let result = match Cli::try_parse_from(args) {
        Ok(cli) => dispatch(cli, out),
        Err(error) => refuse(&error, out),
    };
    let Err(error) = result.and_then(|()| out.flush().map_err(Error::Output)) else {
        return ExitCode::SUCCESS;
    };
    let code = error.exit_code();
    if code != 0 {
        // Where standard error is gone too, the exit code has to do.
        let _ = writeln!(io::stderr(), "error: {}", error.one_line());
    }
    ExitCode::from(code)
}

fn dispatch(cli: Cli, out: &mut impl Write) -> Result<(), Error> {
    // Tokenizing allocates for every word on every thread: one place for all would have them wait for each other.
    if !matches!(
        cli.command,
        Some(Command::Prepare(_) | Command::Tokenizer(_))
    ) {
        crate::allocator::keep_pages();
    }
    hybridnorm_kernels::use_reference_ops(cli.reference_ops);
    match cli.command {
        None => train::run(&cli.train, out),
        Some(Command::Train(flags)) => train::run(&flags, out),
        Some(Command::Plan(flags)) => plan::run(&flags, out),
        Some(Command::Probe(flags)) => probe::run(&flags, out),
        Some(Command::Compare(flags)) => compare::run(&flags, out),
        Some(Command::Report(flags)) => report::run(&flags, out),
        Some(Command::Prepare(flags)) => prepare::run(&flags, out),
        Some(Command::Tokenizer(command)) => tokenizer::run(&command, out),
        Some(Command::Import(flags)) => import::run(&flags, out),
        Some(Command::Generate(flags)) => generate::run(&flags, out),
        Some(Command::Export(flags)) => export::run(&flags, out),
        Some(Command::Eval(flags)) => eval::run(&flags, out),
        Some(Command::Inspect(flags)) => inspect::run(&flags, out),
        Some(Command::Verify(flags)) => verify::run(&flags, out),
        Some(Command::Devices(flags)) => devices::run(&flags, out),
        Some(Command::ServeDevice(flags)) => serve_device::run(&flags, out),
        Some(Command::Bench(bench)) => bench::run(&bench, out),
        Some(Command::Placements) => placements::run(out),
    }
}

/// Help and version go to standard output; anything else clap has to say becomes one line.
fn refuse(error: &clap::Error, out: &mut impl Write) -> Result<(), Error> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        return write!(out, "{}", error.render()).map_err(Error::Output);
    }
    Err(Error::Usage(in_one_line(error)))
}

/// What clap has to say of wrong flags, without its advice.
fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let text = lines.join("; ");
    text.strip_prefix("error: ").unwrap_or(&text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn training_is_the_default() {
        let bare = Cli::try_parse_from(["hybridnorm-train", "--steps", "3"]).unwrap();
        assert!(bare.command.is_none());
        let named = Cli::try_parse_from(["hybridnorm-train", "train", "--steps", "3"]).unwrap();
        let Some(Command::Train(flags)) = named.command else {
            panic!("not train");
        };
        assert_eq!(format!("{flags:?}"), format!("{:?}", bare.train));
    }

    #[test]
    fn help_names_every_row_of_the_tables() {
        let help = Cli::command().render_long_help().to_string();
        for row in hybridnorm_core::PLACEMENTS {
            assert!(help.contains(row.name), "{}", row.name);
        }
        for name in crate::presets::names() {
            assert!(help.contains(name), "{name}");
        }
        for row in crate::device::DEVICES {
            assert!(help.contains(row.name), "{}", row.name);
        }
    }

    #[test]
    fn a_wrong_flag_is_refused_in_one_line() {
        let error = Cli::try_parse_from(["hybridnorm-train", "--placment", "pre"]).unwrap_err();
        let error = refuse(&error, &mut Vec::new()).unwrap_err().to_string();
        assert!(error.contains("--placment") && error.contains("--placement"));
        assert!(!error.contains('\n') && !error.contains("Usage"), "{error}");
    }
}
