//! Tools that a machine may lack: how to tell, and what to say then.

use xshell::Cmd;

pub const NO_CARGO_DENY: &str = "no cargo-deny: cargo install cargo-deny --locked";
pub const NO_MACHETE: &str = "no cargo-machete: cargo install cargo-machete --locked";
pub const NO_NEXTEST: &str = "no cargo-nextest: cargo install cargo-nextest --locked";
pub const NO_TYPOS: &str = "no typos: pip install typos, or cargo install typos-cli --locked";

/// Whether a tool is there: its command, `tool --version`, succeeds.
pub fn answers(version: Cmd<'_>) -> bool {
    version
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .is_ok()
}
