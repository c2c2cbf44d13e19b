//! Where chores run.

use std::path::{Path, PathBuf};

use xshell::Shell;

/// A shell in the workspace root, from wherever `cargo xtask` was called.
pub fn shell() -> Result<Shell, String> {
    // Set by `cargo run`. Not `env!`: the program may stand in a target directory that two checkouts
    // share.
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("call me as `cargo xtask`")?;
    let manifest_dir = PathBuf::from(manifest_dir);
    let root = manifest_dir
        .parent()
        .filter(|root| root.join("Cargo.lock").is_file());
    let root: &Path =
        root.ok_or_else(|| format!("no workspace root above {}", manifest_dir.display()))?;

    let shell = Shell::new().map_err(|error| error.to_string())?;
    shell.change_dir(root);
    Ok(shell)
}
