//! `cargo xtask test`: every test of the workspace, on the devices asked for.

use clap::Args;
use xshell::{Shell, cmd};

use crate::device::Devices;
use crate::report::Report;
use crate::tool;

#[derive(Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub devices: Devices,
    /// Only tests with one of these in their name
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
}

/// Doc-tests come first: nextest does not run them, and its summary should be the last line.
pub fn run(shell: &Shell, args: &TestArgs) -> Report {
    let features = args.devices.features();
    let all = ["--workspace", "--features", &features, "--no-fail-fast"];
    let names = &args.names;
    let mut report = Report::new("test");

    report.step(
        "doc-tests",
        cmd!(shell, "cargo test --release --doc {all...} -- {names...}"),
    );

    if tool::answers(cmd!(shell, "cargo nextest --version")) {
        let command = cmd!(
            shell,
            "cargo nextest run --cargo-profile release {all...} {names...}"
        );
        report.step("tests", command);
    } else {
        eprintln!("xtask: {}; `cargo test` runs the tests", tool::NO_NEXTEST);
        let command = cmd!(
            shell,
            "cargo test --release --lib --bins --tests {all...} -- {names...}"
        );
        report.step("tests", command);
    }
    report
}
