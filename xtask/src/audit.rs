//! `cargo xtask audit`: all of cargo-deny, known vulnerabilities and yanked releases included, and what
//! is out of date.

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
    // Cargo's own report, so no further tool: what `cargo update` would take, and what newer releases
    // our version requirements hold back. A newer release is news, not a failure.
    report.step(
        "out of date",
        cmd!(shell, "cargo update --dry-run --verbose"),
    );
    report.print();
    report
}
