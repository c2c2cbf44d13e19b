//! `inspect`: what state a run is in, and what a resumed one would continue from.

use core::fmt;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::engine::Inspection;
use crate::error::Error;
use crate::sizes::thousands;

/// The flags of `inspect`.
#[derive(Debug, Args)]
pub struct InspectFlags {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &InspectFlags, out: &mut impl Write) -> Result<(), Error> {
    let inspection = Inspection::of(&flags.run)?;
    if flags.json {
        let json = serde_json::to_string(&inspection);
        let json = json.map_err(|error| Error::Output(error.into()))?;
        writeln!(out, "{json}").map_err(Error::Output)?;
    } else {
        write!(out, "{}", Page(&inspection)).map_err(Error::Output)?;
    }
    match inspection.damaged() {
        0 => Ok(()),
        damaged => Err(Error::DamagedCheckpoints {
            damaged,
            checkpoints: inspection.generations.len(),
        }),
    }
}

struct Page<'a>(&'a Inspection);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0;
        let used = if run.in_use {
            "training right now"
        } else {
            "not in use"
        };
        writeln!(
            f,
            "run       {}, {} steps in all, {used}",
            run.run.display(),
            run.steps
        )?;
        let log = &run.metrics;
        let last = match log.last_step {
            Some(step) => format!("up to step {step}"),
            None => "empty".to_string(),
        };
        write!(f, "metrics   {} records, {last}", thousands(log.records))?;
        match log.torn_bytes {
            0 => writeln!(f)?,
            torn => writeln!(
                f,
                ", and {torn} bytes of no record, which a resumed run cuts off"
            )?,
        }
        for found in &run.generations {
            let name = format!("step-{}", found.step);
            let bytes = thousands(found.bytes);
            match (&found.damage, found.tokens) {
                (None, tokens) => {
                    let tokens = thousands(tokens.unwrap_or_default());
                    write!(f, "whole     {name}: {bytes} bytes, after {tokens} tokens")?;
                    match found.refused.as_deref() {
                        None | Some([]) => writeln!(f)?,
                        Some(refused) => writeln!(f, ", {} steps refused", refused.len())?,
                    }
                }
                (Some(damage), _) => writeln!(f, "DAMAGED   {name}: {damage}")?,
            }
        }
        for path in &run.unfinished {
            writeln!(
                f,
                "leftover  {}, which a resumed run deletes",
                path.display()
            )?;
        }
        match run.resumes_from {
            Some(0) => writeln!(f, "resume    from the start: there is no checkpoint yet"),
            Some(step) => writeln!(f, "resume    from step {step}"),
            None => writeln!(f, "resume    refused: no checkpoint is whole"),
        }
    }
}
