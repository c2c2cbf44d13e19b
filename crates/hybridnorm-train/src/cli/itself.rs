//! This program in a process of its own, for what one process can decide or measure only once.

use std::io;
use std::process::Command;

use hybridnorm_kernels::reference_ops;

/// Command `words` of this program, computing as this process does: `--reference-ops` is handed on. Its flags come behind.
///
/// # Errors
/// When the system does not say where the program lies.
pub(super) fn command(words: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(words)
        .args(reference_ops().then_some("--reference-ops"));
    Ok(command)
}
