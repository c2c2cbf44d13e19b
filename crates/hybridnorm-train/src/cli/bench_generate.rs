//! `bench generate`: how fast text is generated.

use std::io::Write;

use clap::Args;

use super::bench::tell;
use super::shape_flags::ShapeFlags;
use crate::bench::GenerateBench;
use crate::device::DeviceSpec;
use crate::error::Error;

/// The flags of `bench generate`. The defaults are those of [`GenerateBench`].
#[derive(Debug, Clone, Args)]
pub struct GenerateBenchFlags {
    #[command(flatten)]
    shape: ShapeFlags,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = GenerateBench::default().seq)]
    seq: usize,
    /// Texts written side by side
    #[arg(long, value_name = "N", default_value_t = GenerateBench::default().batch)]
    batch: usize,
    /// Tokens of each text to time
    #[arg(long, value_name = "N", default_value_t = GenerateBench::default().tokens)]
    tokens: usize,
    /// Tokens before those, which are not timed
    #[arg(long, value_name = "N", default_value_t = GenerateBench::default().warmup)]
    warmup: usize,
    /// Where to compute [default: the best one compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceSpec>,
    /// End standard output with one JSON object; the lines for people go to standard error
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &GenerateBenchFlags, out: &mut impl Write) -> Result<(), Error> {
    let length = flags
        .seq
        .saturating_add(flags.tokens)
        .saturating_add(flags.warmup);
    let (model, _) = flags.shape.resolve(length)?;
    let bench = GenerateBench {
        model,
        seq: flags.seq,
        batch: flags.batch,
        tokens: flags.tokens,
        warmup: flags.warmup,
    };
    bench.validate()?;
    let spec = flags.device.clone().map_or_else(DeviceSpec::best, Ok)?;
    tell(&bench.measure(&spec)?, flags.json, out)
}
