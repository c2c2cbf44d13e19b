//! `cargo xtask audit`: all of cargo-deny, known vulnerabilities and yanked releases included.

use xshell::{Shell, cmd};

use crate::report::Report;
use crate::tool;

pub fn run(shell: &Shell) -> Report {
    let mut report = Report::new("audit");
    if tool::answers(cmd!(shell, "cargo deny --version")) {
        report.step("dependencies", cmd!(shell, "cargo deny check"));
    } else {
        report.not_run("dependencies", tool::NO_CARGO_DENY, true);
    }
    report
}
