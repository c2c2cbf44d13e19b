//! `verify`: this device beside the authors' numbers and beside `flex`, with kernels fused and not.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{Args, ValueEnum};
use hybridnorm_device::fusion;

use super::itself;
use crate::device::DeviceSpec;
use crate::error::Error;
use crate::verify::{self, Fusion, Report, Subject};

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyFlags {
    /// Folder of reference cases, or one case [default: the set shipped in the repository]
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// Device to verify [default: the best one compiled in and found]
    #[arg(long, value_name = "NAME")]
    pub device: Option<DeviceSpec>,
    /// Verify with kernels fused, not fused, or both, one after the other [default: both where this build and the device can]
    #[arg(long)]
    pub fusion: Option<FusionMode>,
    /// Print one JSON object instead of the table; the table goes to standard error
    #[arg(long)]
    pub json: bool,
}

/// What `--fusion` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FusionMode {
    /// Fused kernels only
    On,
    /// One kernel for each operation only
    Off,
    /// One after the other
    Both,
}

pub(super) fn run(flags: &VerifyFlags, out: &mut impl Write) -> Result<(), Error> {
    let spec = flags.device.clone().map_or_else(DeviceSpec::best, Ok)?;
    let reference = match &flags.reference {
        Some(dir) => dir.clone(),
        None => verify::shipped_reference()?,
    };
    let fusable = spec.row().compiles_kernels && fusion::is_compiled_in();
    let mode = match flags.fusion {
        Some(FusionMode::On | FusionMode::Both) if !fusable => {
            return Err(Error::Usage(format!(
                "--fusion on and both need kernel fusion, which {spec} does not have in this build: leave the flag out, or \
                 rebuild for a device that compiles kernels with --features fusion"
            )));
        }
        Some(FusionMode::On | FusionMode::Both) if !fusion::is_on() => {
            return Err(Error::Usage(format!(
                "--fusion on and both: {}=0 in the environment switches fusion off",
                fusion::SWITCH
            )));
        }
        Some(mode) => mode,
        None if fusable && fusion::is_on() => FusionMode::Both,
        None => FusionMode::Off,
    };
    // Fusion is decided once for a process: the pass without it has a process of its own.
    let elsewhere = fusable && fusion::is_on() && mode != FusionMode::On;
    let mut failed = 0;
    let mut result = None;
    if mode != FusionMode::Off || !elsewhere {
        let report = here(flags, &spec, &reference, fusable, out)?;
        failed += report.failed;
        result = Some(serde_json::to_value(&report).map_err(|e| Error::Output(e.into()))?);
    }
    if elsewhere {
        let (report, failures) = unfused(flags, &spec, &reference, out)?;
        failed += failures;
        match &mut result {
            Some(fused) => fused["without_fusion"] = report,
            None => result = Some(report),
        }
    }
    if let (true, Some(mut result)) = (flags.json, result) {
        result["certified"] = (failed == 0 && result["certified"] == true).into();
        writeln!(out, "{result}").map_err(Error::Output)?;
    }
    match failed {
        0 => Ok(()),
        failed => Err(Error::Verification { failed }),
    }
}

/// A pass in this process.
fn here(
    flags: &VerifyFlags,
    spec: &DeviceSpec,
    reference: &Path,
    fusable: bool,
    out: &mut impl Write,
) -> Result<Report, Error> {
    let subject = Subject::open(spec)?;
    let mut told = Ok(());
    let mut tell = |text: &dyn core::fmt::Display| {
        let line = match flags.json {
            true => writeln!(io::stderr(), "{text}"),
            false => writeln!(out, "{text}"),
        };
        told = std::mem::replace(&mut told, Ok(())).and(line);
    };
    let mut report = verify::run(reference, &subject, |case| tell(case))?;
    report.fusion = match (fusable, fusion::is_on()) {
        (false, _) => Fusion::NotCompiledIn,
        (true, true) => Fusion::On,
        (true, false) => Fusion::Off,
    };
    tell(&report);
    // On standard error there may be nobody left to tell; the JSON object still counts.
    if !flags.json {
        told.map_err(Error::Output)?;
    }
    Ok(report)
}

/// The same pass in a child process with fusion switched off. Its table goes where ours goes.
fn unfused(
    flags: &VerifyFlags,
    spec: &DeviceSpec,
    reference: &Path,
    out: &mut impl Write,
) -> Result<(serde_json::Value, usize), Error> {
    let start = |error| Error::io("start", Path::new("this program"))(error);
    out.flush().map_err(Error::Output)?;
    let mut child = itself::command(&["verify"]).map_err(start)?;
    child
        .args(["--json", "--fusion", "off", "--device"])
        .arg(spec.to_string())
        .arg("--reference")
        .arg(reference)
        .env(fusion::SWITCH, "0")
        .stdout(Stdio::piped());
    if !flags.json {
        child.stderr(Stdio::piped());
    }
    let done = child.output().map_err(start)?;
    if !flags.json {
        out.write_all(&done.stderr).map_err(Error::Output)?;
    }
    let report: Option<serde_json::Value> = serde_json::from_slice(&done.stdout).ok();
    let counted = report.and_then(|report| {
        let failed = report["failed"].as_u64()?;
        Some((report, failed as usize))
    });
    counted.ok_or(Error::Panicked("the verification without kernel fusion"))
}
