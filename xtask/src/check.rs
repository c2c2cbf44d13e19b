//! `cargo xtask check`: format, lints, documentation, licences, spelling, unused dependencies.

use clap::Args;
use xshell::{Cmd, Shell, cmd};

use crate::device::{Backend, Devices};
use crate::feature_set::{self, FUSED};
use crate::report::Report;
use crate::tool;
use crate::workspace::Workspace;

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub devices: Devices,
    #[command(flatten)]
    pub options: CheckOptions,
}

#[derive(Args)]
pub struct CheckOptions {
    /// Fail when a tool is not installed, instead of reporting its step as not run
    #[arg(long)]
    pub require_all: bool,
}

/// Runs every step even when one fails, then prints how each of them went.
pub fn run(shell: &Shell, args: &CheckArgs) -> Result<Report, String> {
    let backends = args.devices.with(&[]);
    of(shell, &backends, args.options.require_all, true)
}

/// `fused`: lint the test of kernel fusion too.
pub fn of(
    shell: &Shell,
    backends: &[Backend],
    require_all: bool,
    fused: bool,
) -> Result<Report, String> {
    let workspace = Workspace::read(shell)?;
    for backend in backends {
        backend.known(&workspace)?;
    }
    let mut report = Report::new("check");
    report.step("format", cmd!(shell, "cargo fmt --all --check"));

    // What is linted is what is built: by a bare `cargo run -p hybridnorm-train`, by the tests, and by
    // the test of fusion. In the release profile, whose build scripts and macros those builds share;
    // the documentation reuses what clippy checked of Burn.
    let clippy = |report: &mut Report, name: &str, set: &[&str]| {
        let command = cmd!(
            shell,
            "cargo clippy --release --all-targets {set...} -- -D warnings"
        );
        report.step(format!("clippy, {name}"), command);
    };
    clippy(&mut report, "default features", &["--workspace"]);
    let features = feature_set::of(backends);
    let all = ["--workspace", "--features", &features];
    clippy(&mut report, "devices of the tests", &all);
    if fused && backends.iter().any(Backend::compiles_kernels) {
        let features = feature_set::fused(backends);
        let mut set = vec!["--features", &features];
        set.extend(FUSED.iter().flat_map(|package| ["-p", package]));
        clippy(&mut report, "fusion and autotune", &set);
    }
    let documentation =
        cmd!(shell, "cargo doc --release {all...} --no-deps").env("RUSTDOCFLAGS", "-D warnings");
    report.step("documentation", documentation);

    let mut with_tool = |name, version: Cmd<'_>, command: Cmd<'_>, hint| {
        if tool::answers(version) {
            report.step(name, command);
        } else {
            report.not_run(name, hint, require_all);
        }
    };
    // Not the advisories: they change without a change here, so they are `cargo xtask audit`.
    with_tool(
        "licences, bans, sources",
        cmd!(shell, "cargo deny --version"),
        cmd!(shell, "cargo deny check licenses bans sources"),
        tool::NO_CARGO_DENY,
    );
    with_tool(
        "spelling",
        cmd!(shell, "typos --version"),
        cmd!(shell, "typos"),
        tool::NO_TYPOS,
    );
    // cargo-machete, not cargo-shear: both work offline, but it builds with the pinned toolchain in a
    // minute, where cargo-shear brings rust-analyzer's parser, and that wants a newer Rust (1.14: 1.98).
    with_tool(
        "unused dependencies",
        // Not as `cargo machete`: below `cargo run` it takes its own name for a folder.
        cmd!(shell, "cargo-machete --version"),
        cmd!(shell, "cargo-machete --skip-target-dir"),
        tool::NO_MACHETE,
    );

    report.print();
    Ok(report)
}
