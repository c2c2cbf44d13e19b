//! `cargo xtask`: the one door for every chore of this workspace. `cargo xtask help` lists them.

mod audit;
mod check;
mod ci;
mod cli;
mod device;
mod parity;
mod report;
mod test;
mod tool;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Chore, Cli};
use crate::report::Report;

fn main() -> ExitCode {
    match run(Cli::parse().chore) {
        Ok(report) => report.exit(),
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(chore: Chore) -> Result<Report, String> {
    let shell = workspace::shell()?;
    Ok(match chore {
        Chore::Test(args) => test::run(&shell, &args),
        Chore::Check(args) => check::run(&shell, &args),
        Chore::Ci(args) => ci::run(&shell, &args),
        Chore::Parity(args) => parity::run(&shell, &args),
        Chore::Audit => audit::run(&shell),
    })
}
