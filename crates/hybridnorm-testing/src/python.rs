//! A Python that has PyTorch and transformers, for tests that hold this workspace against them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is installed where it is missing.
const PACKAGES: [&str; 2] = ["torch>=2.5", "transformers>=4.48,<6"];
/// Names an interpreter to take.
const PYTHON: &str = "HYBRIDNORM_PYTHON";
/// Set to 1, makes a missing one a failure, and installs the packages first.
const REQUIRED: &str = "HYBRIDNORM_REQUIRE_PYTHON";

/// An interpreter that imports PyTorch and transformers: `$HYBRIDNORM_PYTHON`, or `python3`. Where it does not, and
/// `HYBRIDNORM_REQUIRE_PYTHON=1`, one that has them installed into an environment below `target_tmp` (`env!("CARGO_TARGET_TMPDIR")`), once.
/// `None`, and a line on standard error, where there is none: the test has nothing to say then, and `cargo xtask test` reports it.
///
/// # Panics
/// When it is required and cannot be had.
pub fn python(target_tmp: &str) -> Option<PathBuf> {
    let given = std::env::var_os(PYTHON).map(PathBuf::from);
    let given = given.unwrap_or_else(|| "python3".into());
    if has_packages(&given) {
        return Some(given);
    }
    if std::env::var(REQUIRED).is_ok_and(|value| value == "1") {
        let installed = install(&given, &Path::new(target_tmp).join("python"));
        return Some(installed.unwrap_or_else(|reason| panic!("{reason}")));
    }
    eprintln!(
        "SKIPPED: {} has no torch and transformers; {PYTHON} names another interpreter, and {REQUIRED}=1 installs them (some 3 GB)",
        given.display()
    );
    None
}

fn has_packages(python: &Path) -> bool {
    let found = Command::new(python)
        .args(["-c", "import torch, transformers"])
        .output();
    found.is_ok_and(|output| output.status.success())
}

/// Makes an environment in `dir` with the packages, unless it is there. Tests are processes, so one waits for the other.
fn install(python: &Path, dir: &Path) -> Result<PathBuf, String> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| format!("{what} {}: {error}", dir.display());
    fs::create_dir_all(dir).map_err(|error| failed("cannot create", &error))?;
    let lock = File::create(dir.join(".lock")).map_err(|error| failed("cannot lock", &error))?;
    lock.lock().map_err(|error| failed("cannot lock", &error))?;
    let own = dir.join("bin").join("python3");
    if has_packages(&own) {
        return Ok(own);
    }
    run(Command::new(python).args(["-m", "venv"]).arg(dir))?;
    let pip = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    run(Command::new(&own).args(pip).args(PACKAGES))?;
    Ok(own)
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{command:?} could not start: {error}")),
    }
}
