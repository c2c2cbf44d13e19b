//! `cargo xtask ci`: everything that must pass before work lands.

use clap::Args;
use xshell::Shell;

use crate::check::{self, CheckOptions};
use crate::device::{Backend, Devices};
use crate::report::Report;
use crate::test::{self, TestArgs};
use crate::web::{self, WebArgs};

#[derive(Args)]
pub struct CiArgs {
    #[command(flatten)]
    devices: Devices,
    /// Devices whose absence is a failure; compiled in like those of `--device`
    #[arg(long, value_name = "DEVICE", value_delimiter = ',')]
    require: Vec<Backend>,
    #[command(flatten)]
    check: CheckOptions,
    /// Leave out the feature set with kernel fusion and autotune
    #[arg(long)]
    no_fused: bool,
    /// Build the page that runs models in a browser, for its test: where the compiler can, and not without saying so
    #[arg(long)]
    web: bool,
    /// Use `cargo test` even where cargo-nextest is installed
    #[arg(long)]
    cargo_test: bool,
}

/// Tests come last, so that the test runner's own closing line ends the log.
pub fn run(shell: &Shell, args: &CiArgs) -> Result<Report, String> {
    let backends = args.devices.with(&args.require);
    let mut report = check::of(shell, &backends, args.check.require_all, !args.no_fused)?;
    if args.web {
        let page = WebArgs::of_tests(backends.clone());
        report.append(web::run(shell, &page, args.check.require_all)?);
    }
    report.append(test::run(
        shell,
        &TestArgs {
            devices: args.devices.clone(),
            require: args.require.clone(),
            no_fused: args.no_fused,
            cargo_test: args.cargo_test,
            no_run: false,
            names: Vec::new(),
        },
    )?);
    Ok(report)
}
