//! `bench placements`: what each placement's norms cost, in time and memory.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::Stdio;

use clap::Args;
use hybridnorm_core::Placement;
use hybridnorm_kernels::profile::Work;
use serde_json::Value;

use super::itself;
use crate::bench::Spread;
use crate::error::Error;

/// The flags of `bench placements`.
#[derive(Debug, Clone, Args)]
pub struct PlacementsFlags {
    /// The placements, the one that the others are compared with first
    #[arg(
        long,
        value_name = "NAME,..",
        value_delimiter = ',',
        default_value = "pre,post,pre-qk,sandwich,qkv-pre,hybrid,hybrid-star"
    )]
    placements: Vec<Placement>,
    /// Times that each is measured, in turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Flags of `bench step`, behind those above
    #[arg(
        value_name = "FLAGS OF BENCH STEP",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    step: Vec<OsString>,
}

/// What a process measured.
#[derive(Debug, Clone, Copy)]
struct Figures {
    tokens_per_s: f64,
    peak_bytes: Option<f64>,
    /// Shares of a step's time in norms, and in those inside attention with the rotation.
    norms: Option<[f64; 2]>,
}

pub(super) fn run(flags: &PlacementsFlags, out: &mut impl Write) -> Result<(), Error> {
    for (own, instead) in [
        ("--json", "bench step --json"),
        ("--placement", "--placements"),
    ] {
        let is_own = |flag: &OsString| {
            let flag = flag.to_string_lossy();
            flag.split_once('=').map_or(&*flag, |(name, _)| name) == own
        };
        if flags.step.iter().any(is_own) {
            let message = format!(
                "{own}: bench placements gives it to bench step itself; there is {instead}"
            );
            return Err(Error::Usage(message));
        }
    }
    // What the processes would refuse is refused here, once.
    let program = ["hybridnorm-train", "bench", "step"].map(OsString::from);
    let args = program.into_iter().chain(flags.step.clone());
    super::parse(args).map_err(|error| Error::Usage(super::in_one_line(&error)))?;
    let mut rounds = vec![Vec::new(); flags.placements.len()];
    for round in 1..=flags.rounds {
        for (placement, found) in flags.placements.iter().zip(&mut rounds) {
            // Where standard error is gone, the table says it all.
            let _ = writeln!(
                io::stderr(),
                "round {round} of {}: {placement}",
                flags.rounds
            );
            found.push(measure(placement, &flags.step)?);
        }
    }
    table(&flags.placements, &rounds, out).map_err(Error::Output)
}

/// Each in a process of its own: the peak of its memory is that of one placement.
fn measure(placement: &Placement, flags: &[OsString]) -> Result<Figures, Error> {
    let failed = |reason: String| Error::Child {
        what: format!("bench step --placement {placement}"),
        reason,
    };
    let mut command =
        itself::command(&["bench", "step"]).map_err(|error| failed(error.to_string()))?;
    let output = command
        .args(flags)
        .args(["--json", "--placement", &placement.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        let last = told.lines().last().unwrap_or("it said nothing");
        let last = last.strip_prefix("error: ").unwrap_or(last);
        return Err(failed(last.to_string()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let json: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .map_err(|error| failed(error.to_string()))?;
    let number = |key: &str| json[key].as_f64();
    let missing = || failed("it gave no time".to_string());
    let step = number("step_ms").ok_or_else(missing)?;
    let operations = json["operations"].as_array();
    let share = |known: &[Value], name: &str| {
        let found = known.iter().find(|operation| operation["name"] == name);
        let ms = found.and_then(|operation| operation["ms"].as_f64());
        ms.unwrap_or(0.0) / step
    };
    let [(_, norms), (_, inside), ..] = Work::ALL;
    Ok(Figures {
        tokens_per_s: number("tokens_per_s").ok_or_else(missing)?,
        peak_bytes: number("peak_bytes"),
        norms: operations
            .filter(|known| !known.is_empty())
            .map(|known| [share(known, norms), share(known, inside)]),
    })
}

/// The median of all rounds, and the time beside the first placement's in the same round.
fn table(
    placements: &[Placement],
    rounds: &[Vec<Figures>],
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(
        out,
        "| placement | tokens/s | time beside {} | peak MiB | norms | inside attention, with rotation |",
        placements[0]
    )?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    for (placement, found) in placements.iter().zip(rounds) {
        let beside = found.iter().zip(&rounds[0]);
        let ratios = beside.map(|(own, first)| first.tokens_per_s / own.tokens_per_s);
        let ratios: Vec<f64> = ratios.collect();
        let ratio = median(&ratios);
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let speeds: Vec<f64> = found.iter().map(|own| own.tokens_per_s).collect();
        let of = |values: Vec<f64>, scale: f64, unit: &str| match values.is_empty() {
            true => "not known".to_string(),
            false => format!("{:.1}{unit}", median(&values) * scale),
        };
        let peak = found.iter().filter_map(|own| own.peak_bytes).collect();
        let share = |at: usize| {
            found
                .iter()
                .filter_map(|own| Some(own.norms?[at]))
                .collect()
        };
        writeln!(
            out,
            "| {placement} | {:.0} | {ratio:.2} ({least:.2}–{most:.2}) | {} | {} | {} |",
            median(&speeds),
            of(peak, 1.0 / f64::from(1 << 20), ""),
            of(share(0), 100.0, " %"),
            of(share(1), 100.0, " %"),
        )?;
    }
    Ok(())
}

/// The median of at least one value.
fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_within_a_round() {
        let figures = |tokens_per_s| Figures {
            tokens_per_s,
            peak_bytes: Some(2_097_152.0),
            norms: Some([0.02, 0.03]),
        };
        let placements = ["pre", "hybrid"].map(|name| name.parse().unwrap());
        let rounds = [
            [100.0, 50.0, 200.0].map(figures).to_vec(),
            [80.0, 50.0, 100.0].map(figures).to_vec(),
        ];
        let mut text = Vec::new();
        table(&placements, &rounds, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let row = "| hybrid | 80 | 1.25 (1.00–2.00) | 2.0 | 2.0 % | 3.0 % |";
        assert!(text.contains(row), "{text}");
    }
}
