//! `bench placements`: what each placement's norms cost, in time and memory.

use core::fmt;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::Stdio;

use clap::Args;
use hybridnorm_core::Placement;
use hybridnorm_kernels::profile::Work;
use serde::Serialize;
use serde_json::{Map, Value};

use super::bench::tell;
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
    /// End standard output with one JSON object; the table goes to standard error
    #[arg(long)]
    json: bool,
    /// Flags of `bench step`, behind those above
    #[arg(
        value_name = "FLAGS OF BENCH STEP",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    step: Vec<OsString>,
}

/// Of what a process says of itself, that which is the same for all placements.
const SETTING: [&str; 17] = [
    "engine",
    "device",
    "device_name",
    "threads",
    "dtype",
    "preset",
    "d_model",
    "layers",
    "heads",
    "kv_heads",
    "ffn",
    "vocab",
    "seq",
    "batch",
    "experts",
    "top_k",
    "steps",
];

/// What a process measured.
#[derive(Debug, Clone)]
struct Figures {
    tokens_per_s: f64,
    step_ms: f64,
    peak_bytes: Option<f64>,
    /// Shares of a step's time in norms, and in those inside attention with the rotation, where they are timed apart.
    norms: [Option<f64>; 2],
    setting: Map<String, Value>,
}

pub(super) fn run(flags: &PlacementsFlags, out: &mut impl Write) -> Result<(), Error> {
    let (json, step) = flags.divided()?;
    // What the processes would refuse is refused here, once.
    let program = ["hybridnorm-train", "bench", "step"].map(OsString::from);
    let args = program.into_iter().chain(step.clone());
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
            found.push(measure(placement, &step)?);
        }
    }
    tell(&Report::of(&flags.placements, &rounds), json, out)
}

impl PlacementsFlags {
    /// Whether an object is wanted, which may be said among the flags of `bench step` too, and the rest of these.
    fn divided(&self) -> Result<(bool, Vec<OsString>), Error> {
        for (own, what) in [
            ("--placements", "it goes before the flags of bench step"),
            ("--rounds", "it goes before the flags of bench step"),
            (
                "--placement",
                "bench placements gives it to bench step itself; there is --placements",
            ),
        ] {
            let is_own = |flag: &OsString| {
                let flag = flag.to_string_lossy();
                flag.split_once('=').map_or(&*flag, |(name, _)| name) == own
            };
            if self.step.iter().any(is_own) {
                return Err(Error::Usage(format!("{own}: {what}")));
            }
        }
        let (json, step): (Vec<_>, Vec<_>) =
            self.step.iter().cloned().partition(|arg| arg == "--json");
        Ok((self.json || !json.is_empty(), step))
    }
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
    let json: Map<String, Value> = serde_json::from_str(text.lines().last().unwrap_or_default())
        .map_err(|error| failed(error.to_string()))?;
    let number = |key: &str| json.get(key)?.as_f64();
    let missing = || failed("it gave no time".to_string());
    let step = number("step_ms").ok_or_else(missing)?;
    let share = |name: &str| {
        let mut known = json.get("operations")?.as_array()?.iter();
        let found = known.find(|operation| operation["name"] == name)?;
        Some(found["ms"].as_f64()? / step)
    };
    let [(_, norms), (_, inside), ..] = Work::ALL;
    let of_setting = SETTING.iter().filter_map(|key| {
        let value = json.get(*key)?.clone();
        Some(((*key).to_string(), value))
    });
    Ok(Figures {
        tokens_per_s: number("tokens_per_s").ok_or_else(missing)?,
        step_ms: step,
        peak_bytes: number("peak_bytes"),
        norms: [share(norms), share(inside)],
        setting: of_setting.collect(),
    })
}

/// What all rounds say.
#[derive(Debug, Serialize)]
struct Report {
    bench: &'static str,
    #[serde(flatten)]
    setting: Map<String, Value>,
    rounds: usize,
    placements: Vec<Row>,
}

/// Medians over the rounds, and the time beside the first placement's in the same round.
#[derive(Debug, Serialize)]
struct Row {
    placement: String,
    tokens_per_s: f64,
    step_ms: f64,
    time_ratio: f64,
    least_time_ratio: f64,
    most_time_ratio: f64,
    peak_bytes: Option<f64>,
    /// Share of a step's time.
    norms_share: Option<f64>,
    norms_inside_attention_share: Option<f64>,
}

impl Report {
    fn of(placements: &[Placement], rounds: &[Vec<Figures>]) -> Self {
        let rows = placements.iter().zip(rounds).map(|(placement, found)| {
            let beside = found.iter().zip(&rounds[0]);
            let ratios = beside.map(|(own, first)| first.tokens_per_s / own.tokens_per_s);
            let ratios: Vec<f64> = ratios.collect();
            let of = |figure: &dyn Fn(&Figures) -> Option<f64>| {
                let values: Vec<f64> = found.iter().filter_map(figure).collect();
                Spread::of(&values).map(|spread| spread.median)
            };
            Row {
                placement: placement.to_string(),
                tokens_per_s: of(&|own| Some(own.tokens_per_s)).unwrap_or(f64::NAN),
                step_ms: of(&|own| Some(own.step_ms)).unwrap_or(f64::NAN),
                time_ratio: Spread::of(&ratios).map_or(f64::NAN, |spread| spread.median),
                least_time_ratio: ratios.iter().copied().fold(f64::INFINITY, f64::min),
                most_time_ratio: ratios.iter().copied().fold(0.0, f64::max),
                peak_bytes: of(&|own| own.peak_bytes),
                norms_share: of(&|own| own.norms[0]),
                norms_inside_attention_share: of(&|own| own.norms[1]),
            }
        });
        let first = rounds.first().and_then(|found| found.first());
        Self {
            bench: "placements",
            setting: first.map(|own| own.setting.clone()).unwrap_or_default(),
            rounds: rounds.first().map_or(0, Vec::len),
            placements: rows.collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.placements.first();
        writeln!(
            f,
            "| placement | tokens/s | time beside {} | peak MiB | norms | inside attention, with rotation |",
            first.map_or("none", |row| &row.placement)
        )?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        let or_not = |value: Option<f64>, scale: f64, unit: &str| {
            value.map_or("not known".to_string(), |value| {
                format!("{:.1}{unit}", value * scale)
            })
        };
        for row in &self.placements {
            writeln!(
                f,
                "| {} | {:.0} | {:.2} ({:.2}–{:.2}) | {} | {} | {} |",
                row.placement,
                row.tokens_per_s,
                row.time_ratio,
                row.least_time_ratio,
                row.most_time_ratio,
                or_not(row.peak_bytes, 1.0 / f64::from(1 << 20), ""),
                or_not(row.norms_share, 100.0, " %"),
                or_not(row.norms_inside_attention_share, 100.0, " %"),
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_within_a_round() {
        let figures = |tokens_per_s| Figures {
            tokens_per_s,
            step_ms: 1000.0 / tokens_per_s,
            peak_bytes: Some(2_097_152.0),
            norms: [Some(0.02), None],
            setting: Map::new(),
        };
        let placements = ["pre", "hybrid"].map(|name| name.parse().unwrap());
        let rounds = [
            [100.0, 50.0, 200.0].map(figures).to_vec(),
            [80.0, 50.0, 100.0].map(figures).to_vec(),
        ];
        let text = Report::of(&placements, &rounds).to_string();
        let row = "| hybrid | 80 | 1.25 (1.00–2.00) | 2.0 | 2.0 % | not known |";
        assert!(text.contains(row), "{text}");
    }
}
