//! `cargo xtask docs`: the documentation of the crates, and the pages that the program writes.

use xshell::{Shell, cmd};

use crate::report::Report;

/// Written by the program from the one table of devices; a test holds the file against that table.
const BACKENDS: &str = "docs/backends.md";

pub fn run(shell: &Shell) -> Report {
    let mut report = Report::new("docs");
    report.record(BACKENDS, backends(shell));
    report.step(
        "documentation",
        cmd!(shell, "cargo doc --release --workspace --no-deps").env("RUSTDOCFLAGS", "-D warnings"),
    );
    report.print();
    report
}

/// Replaces the page only by a whole one.
fn backends(shell: &Shell) -> Result<(), String> {
    let table = cmd!(
        shell,
        "cargo run --release -p hybridnorm-train -- devices --table"
    )
    .read()
    .map_err(|error| error.to_string())?;
    if table.trim().is_empty() {
        return Err("`devices --table` printed nothing".to_owned());
    }
    shell
        .write_file(BACKENDS, table.trim_end().to_owned() + "\n")
        .map_err(|error| error.to_string())
}
