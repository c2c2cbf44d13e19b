//! `verify`: this device's numbers beside the authors' numbers.
//!
//! The judge is a folder of reference cases computed by the authors' PyTorch code (its README gives the format); a
//! small set ships with the program.

mod case;
mod check;
mod dense;
mod micro;
mod report;
mod trajectory;
mod values;

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_interop::InteropError;

use case::CaseDir;
pub use check::{Check, FACTOR};
pub use report::{CaseReport, Outcome, Report};

/// The set of cases that ships with the source: found from the repository that this program was built in, or in a
/// folder `reference` beside the program.
///
/// # Errors
/// When neither is there.
pub fn shipped_reference() -> Result<PathBuf, InteropError> {
    let built = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/reference"));
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join("reference")));
    [Some(built.clone()), beside]
        .into_iter()
        .flatten()
        .find(|dir| dir.is_dir())
        .ok_or(InteropError::Read {
            path: built,
            source: std::io::Error::other("the shipped reference is gone; give --reference DIR"),
        })
}

/// Runs every case in `reference` on `device`, telling `each` of every case as it ends.
///
/// `reference` is a folder of cases, or a single case.
///
/// # Errors
/// When the folder cannot be read or holds no case.
pub fn run(
    reference: &Path,
    device: &Device,
    device_name: &str,
    mut each: impl FnMut(&CaseReport),
) -> Result<Report, InteropError> {
    let mut cases = Vec::new();
    for dir in case_dirs(reference)? {
        let case = run_case(dir, device);
        each(&case);
        cases.push(case);
    }
    Ok(Report::new(device_name.to_string(), cases))
}

/// The case folders, by name.
fn case_dirs(reference: &Path) -> Result<Vec<PathBuf>, InteropError> {
    let read = |source| InteropError::Read {
        path: reference.to_path_buf(),
        source,
    };
    if reference.join("case.json").is_file() || reference.join("meta.json").is_file() {
        return Ok(vec![reference.to_path_buf()]);
    }
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(reference).map_err(read)? {
        let path = entry.map_err(read)?.path();
        if path.is_dir() {
            dirs.push(path);
        }
    }
    dirs.sort();
    if dirs.is_empty() {
        return Err(InteropError::Format {
            path: reference.to_path_buf(),
            expected: "reference",
            reason: "the folder holds no case folders".to_string(),
        });
    }
    Ok(dirs)
}

fn run_case(path: PathBuf, device: &Device) -> CaseReport {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let dir = CaseDir(path);
    let run = if name.starts_with("dense_") {
        dense::run
    } else if name.starts_with("micro_dense") {
        micro::run
    } else {
        let reason = match name.split('_').next() {
            Some("moe") => "mixture-of-experts models come with hybridnorm-moe",
            Some("hf") => "Hugging Face architectures are not imported yet",
            _ if name.starts_with("micro_moe") => {
                "mixture-of-experts layers come with hybridnorm-moe"
            }
            _ => "unknown kind of case; known are dense_* and micro_dense*",
        };
        return CaseReport::without_checks(&name, Outcome::Unsupported(reason.to_string()));
    };
    // A device that breaks down, or a file whose shapes are absurd, fails its case and not the whole report.
    let checks = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&dir, device)));
    let Ok(checks) = checks else {
        let reason = "panicked; the message stands above".to_string();
        return CaseReport::without_checks(&name, Outcome::Failed(reason));
    };
    match checks {
        Ok(checks) => CaseReport::from_checks(&name, checks),
        Err(error @ InteropError::Unsupported { .. }) => {
            CaseReport::without_checks(&name, Outcome::Unsupported(error.to_string()))
        }
        Err(error) => CaseReport::without_checks(&name, Outcome::Failed(error.to_string())),
    }
}
