//! `cargo xtask parity`: the model against reference values, through the program's own `verify`.

use std::path::PathBuf;

use clap::Args;
use xshell::{Shell, cmd};

use crate::device::Device;
use crate::report::Report;

#[derive(Args)]
pub struct ParityArgs {
    /// Folder of reference cases [default: the set shipped in the repository]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    reference: Option<PathBuf>,
    /// Device to verify, by its Cargo feature [default: the best one of the default build]
    #[arg(long)]
    device: Option<Device>,
    /// Further flags of `hybridnorm-train verify`, such as `--json`
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

/// A relative folder is relative to where the user stands; chores run in the workspace root.
fn absolute(path: &str) -> Result<PathBuf, String> {
    std::path::absolute(path).map_err(|error| error.to_string())
}

pub fn run(shell: &Shell, args: &ParityArgs) -> Report {
    let mut command = cmd!(shell, "cargo run --release -p hybridnorm-train");
    if let Some(device) = &args.device {
        command = command.arg("--features").arg(device.feature());
    }
    command = command.args(["--", "verify"]);
    if let Some(device) = &args.device {
        command = command.arg("--device").arg(device.to_string());
    }
    if let Some(reference) = &args.reference {
        command = command.arg("--reference").arg(reference);
    }

    let mut report = Report::new("parity");
    report.step("verify", command.args(&args.flags));
    report
}
