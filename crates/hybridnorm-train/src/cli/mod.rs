//! The command line: one file per subcommand. Each turns its flags into a validated configuration and calls the
//! library.
//!
//! Results go to standard output, progress and errors to standard error. An error is one line, and its exit code one of
//! [`EXIT_CODES`].

mod batch;
mod bench;
mod bench_checkpoint;
mod bench_generate;
mod bench_placements;
mod compare;
mod contents;
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
mod itself;
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
mod request;
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

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

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

use crate::error::{EXIT_CODES, Error};

/// What the libraries below say of a number that is none, and what it says of it here.
const PLAINER: [(&str, &str); 4] = [
    (
        "invalid digit found in string",
        "a whole number is needed, such as 500",
    ),
    (
        "number too large to fit in target type",
        "the number is too large",
    ),
    (
        "cannot parse integer from empty string",
        "a whole number is needed, such as 500",
    ),
    ("invalid float literal", "a number is needed, such as 3e-4"),
];

/// Trains transformer language models with any norm placement. Without a subcommand: train.
#[derive(Debug, Parser)]
#[command(name = "hybridnorm-train", version, args_conflicts_with_subcommands = true, after_help = exit_codes())]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The flags of `train`, which is the default.
    #[command(flatten)]
    pub train: RunFlags,
    /// Compute norms, attention, activations and losses by the plain operations that define them: slow, and with other roundings.
    /// Refused by commands that compute none
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
    #[command(subcommand, arg_required_else_help = false)]
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

impl Command {
    /// Whether it computes anything with a model.
    fn computes(&self) -> bool {
        !matches!(
            self,
            Self::Report(_)
                | Self::Prepare(_)
                | Self::Tokenizer(_)
                | Self::Import(_)
                | Self::Inspect(_)
                | Self::Devices(_)
                | Self::ServeDevice(_)
                | Self::Placements
        )
    }
}

/// The end of `--help`.
fn exit_codes() -> String {
    let rows = EXIT_CODES.map(|(code, when)| format!("\n{code:>5}  {}", when.replace('`', "")));
    format!("Exit codes:{}", rows.concat())
}

/// Runs the program with `args`, its own name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let out = &mut io::stdout();
    let result = match parse(args) {
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

/// The command line that `args` are.
fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let mut command = with_negative_values(Cli::command());
    let mut matches = command.try_get_matches_from_mut(args)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Takes `-1` behind an option as its value, so that what is said of it names the option.
fn with_negative_values(command: clap::Command) -> clap::Command {
    let values = |arg: clap::Arg| match arg.get_action().takes_values() && !arg.is_positional() {
        true => arg.allow_negative_numbers(true),
        false => arg,
    };
    command
        .mut_args(values)
        .mut_subcommands(with_negative_values)
}

fn dispatch(cli: Cli, out: &mut impl Write) -> Result<(), Error> {
    if cli.reference_ops && !cli.command.as_ref().is_none_or(Command::computes) {
        let message = "--reference-ops: this command computes nothing that it would change";
        return Err(Error::Usage(message.to_string()));
    }
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
    if let Some(word) = word_behind_flags(error) {
        return match Cli::command().find_subcommand(&word) {
            Some(_) => format!("the command goes first: hybridnorm-train {word}, then its flags"),
            None => format!(
                "'{word}' belongs to no flag and is no command: hybridnorm-train --help lists both"
            ),
        };
    }
    let text = error.render().to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let text = lines.join("; ").replace(":; ", ": ");
    let text = text.strip_prefix("error: ").unwrap_or(&text).to_string();
    PLAINER
        .iter()
        .fold(text, |text, (theirs, ours)| text.replace(theirs, ours))
}

/// A word behind the flags of `train`, which clap takes for a command there.
fn word_behind_flags(error: &clap::Error) -> Option<String> {
    let of = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::ArgumentConflict => of(ContextKind::InvalidSubcommand),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        with_negative_values(Cli::command()).debug_assert();
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
    fn the_readme_has_every_command() {
        let readme = include_str!("../../../../README.md");
        for command in Cli::command().get_subcommands() {
            let mut parts: Vec<&str> = command
                .get_subcommands()
                .map(clap::Command::get_name)
                .collect();
            if parts.is_empty() {
                parts.push("");
            }
            for part in parts {
                let call = format!("{} {part}", command.get_name());
                assert!(readme.contains(call.trim_end()), "{call}");
            }
        }
    }

    #[rstest]
    #[case("--placment pre", &["--placment", "--placement"])]
    #[case("--seed -1", &["'-1'", "--seed <N>", "a whole number is needed"])]
    #[case("bench step --steps 1e3", &["'1e3'", "--steps <N>", "a whole number is needed"])]
    #[case("--steps 99999999999999999999", &["--steps <N>", "too large"])]
    #[case("--lr fast", &["--lr <RATE>", "a number is needed, such as 3e-4"])]
    #[case("report", &["were not provided: <DIR>"])]
    #[case("--steps 3 extra", &["'extra' belongs to no flag and is no command"])]
    #[case("--steps 3 plan", &["hybridnorm-train plan, then its flags"])]
    #[case("tokenizer", &["requires a subcommand", "train"])]
    #[case("bench", &["requires a subcommand", "step", "checkpoint"])]
    #[case("bench placements --placement=pre", &["--placement", "--placements"])]
    #[case("inspect runs/demo --reference-ops", &["--reference-ops", "nothing"])]
    fn a_wrong_command_line_is_refused_in_one_line(#[case] line: &str, #[case] words: &[&str]) {
        let args = std::iter::once("hybridnorm-train").chain(line.split(' '));
        let result = match parse(args.map(OsString::from)) {
            Ok(cli) => dispatch(cli, &mut Vec::new()),
            Err(error) => refuse(&error, &mut Vec::new()),
        };
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        assert!(!error.contains('\n') && !error.contains("Usage"), "{error}");
        for word in words {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
    }
}
