//! `verify`: a certificate that a device computes this project's models right.
//!
//! Two judges. A folder of reference cases computed by the authors' PyTorch code (its README gives the format; a small set ships with
//! the program), and `flex`, which the same reference holds: beside it every value of the forward pass is compared, so that the first
//! operation that goes wrong is named.

mod agreement;
mod case;
mod check;
mod expected;
mod micro;
mod model_case;
mod record;
mod report;
pub mod routing;
mod trajectory;
mod values;
mod yardstick;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, TensorReadError};
use hybridnorm_device::{DeviceError, DeviceSpec};
use hybridnorm_interop::InteropError;
use hybridnorm_moe::ModelConfig;

pub use agreement::{Agreement, Divergence, Phase, Tie, compare};
use case::CaseDir;
pub use check::{Check, FACTOR};
use model_case::ModelCase;
pub use record::{Losses, Record, Step, TrajectoryWork, Work, record};
pub use report::{CaseReport, Fusion, Outcome, Report};
pub use yardstick::{YARDSTICK, Yardstick, presets};

/// A device under verification.
#[derive(Debug)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// The device, without autodiff.
    pub device: Device,
    /// The device it is held against; `None` where it is the yardstick itself, or that is not compiled in.
    pub yardstick: Option<Device>,
}

impl Subject {
    /// The device `spec`, held against `flex` where that is another one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(spec: &DeviceSpec) -> Result<Self, DeviceError> {
        Ok(Self::new(spec.to_string(), spec.open()?))
    }

    /// A device by any name, held against `flex` where that is another one.
    pub fn new(name: String, device: Device) -> Self {
        let yardstick = yardstick::device().filter(|flex| flex.clone().inner() != device);
        Self {
            name,
            device,
            yardstick,
        }
    }
}

/// Why a case could not be computed.
#[derive(Debug, thiserror::Error)]
enum CaseError {
    #[error(transparent)]
    Interop(#[from] InteropError),
    #[error("the device failed: {0}")]
    Device(#[from] TensorReadError),
}

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

/// Runs every case in `reference` on the subject, telling `each` of every case as it ends.
///
/// `reference` is a folder of cases, or a single case. A folder is followed by some [`presets`], which have no reference and are held
/// against the yardstick alone.
///
/// # Errors
/// When the folder cannot be read or holds no case.
pub fn run(
    reference: &Path,
    subject: &Subject,
    mut each: impl FnMut(&CaseReport),
) -> Result<Report, InteropError> {
    let mut cases = Vec::new();
    let mut push = |case: CaseReport| {
        each(&case);
        cases.push(case);
    };
    let dirs = case_dirs(reference)?;
    let folder = dirs.iter().any(|dir| dir != reference);
    for dir in dirs {
        push(run_case(dir, subject));
    }
    if let Some(flex) = subject.yardstick.as_ref().filter(|_| folder) {
        for (name, config) in presets()? {
            let case = || preset_case(&config, &subject.device, flex);
            push(guarded(&format!("preset {name}"), case));
        }
    }
    Ok(Report::new(subject.name.clone(), cases))
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

fn run_case(path: PathBuf, subject: &Subject) -> CaseReport {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let dir = CaseDir(path);
    let kind = name.split('_').next().unwrap_or_default();
    match kind {
        "dense" | "moe" => guarded(&name, || model_case(ModelCase::official(&dir)?, subject)),
        "hf" => guarded(&name, || {
            model_case(ModelCase::hugging_face(&dir)?, subject)
        }),
        "micro" if name.starts_with("micro_dense") || name.starts_with("micro_moe") => {
            guarded(&name, || Ok((micro::run(&dir, &subject.device)?, None)))
        }
        _ => {
            let reason =
                "unknown kind of case; known are dense_*, moe_*, hf_*, micro_dense* and micro_moe*";
            CaseReport::without_checks(&name, Outcome::Unsupported(reason.to_string()))
        }
    }
}

type Judged = (Vec<Check>, Option<Agreement>);

/// Against the reference's numbers, and against the yardstick.
fn model_case(case: ModelCase, subject: &Subject) -> Result<Judged, CaseError> {
    let device = subject.device.clone().autodiff();
    let model = case.model(&device)?;
    let found = record(model.clone(), case.work(), &device)?;
    let checks = case.compare(&found, &model)?;
    let agreement = match &subject.yardstick {
        Some(flex) => {
            let build = |device: &Device| case.model(device).map_err(CaseError::from);
            let yardstick = Yardstick::measure(case.work(), flex, build)?;
            Some(compare(&found, &yardstick))
        }
        None => None,
    };
    Ok((checks, agreement))
}

/// Against the yardstick alone; both start from the same seed.
fn preset_case(config: &ModelConfig, device: &Device, flex: &Device) -> Result<Judged, CaseError> {
    let work = yardstick::work(config);
    let build = |device: &Device| {
        let model = config.init(device).map_err(InteropError::from);
        model.map_err(CaseError::from)
    };
    let device = device.clone().autodiff();
    let model = build(&device)?;
    let parameters = |model| values::parameters(model, &work.names);
    let same = parameters(&model) == parameters(&build(flex)?);
    let checks = vec![Check::exact("the same initial parameters", same, "")];
    let found = record(model, &work, &device)?;
    let yardstick = Yardstick::measure(&work, flex, build)?;
    Ok((checks, Some(compare(&found, &yardstick))))
}

/// A device that breaks down, or a file whose shapes are absurd, fails its case and not the whole report.
fn guarded(name: &str, case: impl FnOnce() -> Result<Judged, CaseError>) -> CaseReport {
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(case));
    let outcome = match judged {
        Ok(Ok((checks, agreement))) => return CaseReport::judged(name, checks, agreement),
        Ok(Err(CaseError::Interop(error @ InteropError::Unsupported { .. }))) => {
            Outcome::Unsupported(error.to_string())
        }
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed("panicked; the message stands above".to_string()),
    };
    CaseReport::without_checks(name, outcome)
}
