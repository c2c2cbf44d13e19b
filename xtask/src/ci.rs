//! `cargo xtask ci`: everything that must pass before work lands.

use clap::Args;
use xshell::Shell;

use crate::check::{self, CheckArgs};
use crate::report::Report;
use crate::test::{self, TestArgs};

#[derive(Args)]
pub struct CiArgs {
    #[command(flatten)]
    check: CheckArgs,
}

/// Tests come last, so that the test runner's own closing line ends the log.
pub fn run(shell: &Shell, args: &CiArgs) -> Report {
    let mut report = check::run(shell, &args.check);
    let devices = args.check.devices.clone();
    report.append(test::run(
        shell,
        &TestArgs {
            devices,
            names: Vec::new(),
        },
    ));
    report
}
