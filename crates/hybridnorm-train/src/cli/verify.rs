//! `verify`: this device beside the authors' numbers.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;

use crate::device::DeviceSpec;
use crate::error::Error;
use crate::verify;

/// Flags of `verify`.
#[derive(Debug, Args)]
pub struct VerifyFlags {
    /// Folder of reference cases, or one case [default: the set shipped in the repository]
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// Device to verify [default: the best one compiled in]
    #[arg(long)]
    pub device: Option<DeviceSpec>,
    /// Print one JSON object instead of the table; the table goes to standard error
    #[arg(long)]
    pub json: bool,
}

pub(super) fn run(flags: &VerifyFlags, out: &mut impl Write) -> Result<(), Error> {
    let spec = flags.device.map_or_else(DeviceSpec::best, Ok)?;
    let device = spec.open()?;
    let reference = match &flags.reference {
        Some(dir) => dir.clone(),
        None => verify::shipped_reference()?,
    };
    let mut told = Ok(());
    let report = verify::run(&reference, &device, &spec.to_string(), |case| {
        let line = if flags.json {
            writeln!(io::stderr(), "{case}")
        } else {
            writeln!(out, "{case}")
        };
        told = std::mem::replace(&mut told, Ok(())).and(line);
    })?;
    if !flags.json {
        told.and_then(|()| writeln!(out, "{report}"))
            .map_err(Error::Output)?;
    } else {
        let text = serde_json::to_string(&report).map_err(|error| Error::Output(error.into()))?;
        writeln!(out, "{text}").map_err(Error::Output)?;
    }
    match report.failed {
        0 => Ok(()),
        failed => Err(Error::Verification { failed }),
    }
}
