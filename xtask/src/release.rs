//! `cargo xtask release`: the publishable crates, in the order in which they depend on each other.

use clap::Args;
use xshell::{Shell, cmd};

use crate::report::Report;

#[derive(Args)]
pub struct ReleaseArgs {
    /// Package and build every crate as crates.io would, and upload nothing
    #[arg(long)]
    dry_run: bool,
}

/// Cargo itself finds the order, and leaves out what says `publish = false`. It packages each crate
/// against the others as they will be published, so a first release can be rehearsed.
pub fn run(shell: &Shell, args: &ReleaseArgs) -> Report {
    let mut report = Report::new("release");
    let dry_run = args.dry_run.then_some("--dry-run");
    report.step(
        "publish",
        cmd!(shell, "cargo publish --workspace --locked {dry_run...}"),
    );
    report
}
