//! `cargo xtask`: the one door for every chore of this workspace. `cargo xtask help` lists them.

mod audit;
mod bench;
mod case;
mod check;
mod ci;
mod cli;
mod device;
mod docs;
mod feature_set;
mod features;
mod found;
mod gpu;
mod parity;
mod release;
mod report;
mod test;
mod tool;
mod web;
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
    let shell = workspace::shell;
    match chore {
        Chore::Test(args) => test::run(&shell()?, &args),
        Chore::Check(args) => check::run(&shell()?, &args),
        Chore::Ci(args) => ci::run(&shell()?, &args),
        Chore::Features(args) => features::run(&shell()?, &args),
        Chore::Parity(args) => parity::run(&shell()?, &args),
        // The one chore that also runs where there is no workspace: on the machine of `gpu`.
        Chore::Bench(args) => bench::run(&args),
        Chore::Gpu(args) => gpu::run(&shell()?, &args),
        Chore::Web(args) => web::run(&shell()?, &args, true),
        Chore::Docs => Ok(docs::run(&shell()?)),
        Chore::Audit => Ok(audit::run(&shell()?)),
        Chore::Release(args) => Ok(release::run(&shell()?, &args)),
    }
}
