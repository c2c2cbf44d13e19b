//! `cargo xtask check`: format, lints, documentation, licences, spelling.

use clap::Args;
use xshell::{Shell, cmd};

use crate::device::Devices;
use crate::report::Report;
use crate::tool::{self, answers};

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub devices: Devices,
    /// Fail when a tool is not installed, instead of reporting its step as not run
    #[arg(long)]
    pub require_all: bool,
}

/// Runs every step even when one fails, then prints how each of them went.
pub fn run(shell: &Shell, args: &CheckArgs) -> Report {
    let features = args.devices.features();
    let mut report = Report::new("check");

    report.step("format", cmd!(shell, "cargo fmt --all --check"));

    // The profile and the features of `test`. The documentation reuses what clippy checked of Burn.
    let all = ["--release", "--workspace", "--features", &features];
    report.step(
        "clippy",
        cmd!(shell, "cargo clippy {all...} --all-targets -- -D warnings"),
    );
    let documentation =
        cmd!(shell, "cargo doc {all...} --no-deps").env("RUSTDOCFLAGS", "-D warnings");
    report.step("documentation", documentation);

    if answers(cmd!(shell, "cargo deny --version")) {
        // Not the advisories: they change without a change here, so they are `cargo xtask audit`.
        report.step(
            "licences, bans, sources",
            cmd!(shell, "cargo deny check licenses bans sources"),
        );
    } else {
        report.not_run(
            "licences, bans, sources",
            tool::NO_CARGO_DENY,
            args.require_all,
        );
    }
    if answers(cmd!(shell, "typos --version")) {
        report.step("spelling", cmd!(shell, "typos"));
    } else {
        report.not_run("spelling", tool::NO_TYPOS, args.require_all);
    }

    report.print();
    report
}
