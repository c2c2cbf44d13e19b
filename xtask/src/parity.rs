//! `cargo xtask parity`: the model against reference values, through the program's own `verify`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use xshell::{Shell, cmd};

use crate::device::Device;
use crate::report::Report;
use crate::workspace::Workspace;

#[derive(Args)]
pub struct ParityArgs {
    /// Folder of reference cases [default: the set shipped in the repository]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    reference: Option<PathBuf>,
    /// Device to verify, by its Cargo feature [default: the best one of the default build]
    #[arg(long)]
    device: Option<Device>,
    /// Verify with or without kernel fusion, which is compiled in for it, or both
    #[arg(long)]
    fusion: Option<Fusion>,
    /// Further flags of `hybridnorm-train verify`, such as `--json`
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Fusion {
    On,
    Off,
    Both,
}

/// A relative folder is relative to where the user stands; chores run in the workspace root.
pub fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| error.to_string())
}

pub fn run(shell: &Shell, args: &ParityArgs) -> Result<Report, String> {
    if let Some(device) = &args.device {
        device.backend.known(&Workspace::read(shell)?)?;
    }
    let mut report = Report::new("parity");
    report.step("verify", cmd!(shell, "cargo").args(arguments(args)));
    Ok(report)
}

fn arguments(args: &ParityArgs) -> Vec<String> {
    let mut words: Vec<String> = ["run", "--release", "-p", "hybridnorm-train"]
        .map(str::to_owned)
        .into();
    let backend = args.device.as_ref().map(|device| device.backend.name());
    let fusion = args.fusion.filter(|fusion| *fusion != Fusion::Off);
    let features: Vec<&str> = backend
        .into_iter()
        .chain(fusion.map(|_| "fusion"))
        .collect();
    if !features.is_empty() {
        words.extend(["--features".to_owned(), features.join(",")]);
    }
    words.extend(["--", "verify"].map(str::to_owned));
    if let Some(device) = &args.device {
        words.extend(["--device".to_owned(), device.to_string()]);
    }
    if let Some(value) = args.fusion.and_then(|fusion| fusion.to_possible_value()) {
        words.extend(["--fusion".to_owned(), value.get_name().to_owned()]);
    }
    if let Some(reference) = &args.reference {
        words.extend(["--reference".to_owned(), reference.display().to_string()]);
    }
    words.extend(args.flags.iter().cloned());
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ParityArgs,
    }

    fn words(line: &[&str]) -> String {
        let line = std::iter::once("parity").chain(line.iter().copied());
        arguments(&Line::parse_from(line).args).join(" ")
    }

    #[test]
    fn fusion_is_compiled_in_when_it_is_to_be_verified() {
        let run = "run --release -p hybridnorm-train";
        assert_eq!(words(&[]), format!("{run} -- verify"));
        assert_eq!(
            words(&["--device", "cuda:1", "--fusion", "both", "--", "--json"]),
            format!("{run} --features cuda,fusion -- verify --device cuda:1 --fusion both --json")
        );
        assert_eq!(
            words(&["--fusion", "off"]),
            format!("{run} -- verify --fusion off")
        );
    }
}
