//! `bench checkpoint`: how fast a run's state is saved and restored.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::bench::tell;
use super::shape_flags::ShapeFlags;
use crate::bench::CheckpointBench;
use crate::device::DeviceSpec;
use crate::error::Error;

/// The flags of `bench checkpoint`. The defaults are those of [`CheckpointBench`].
#[derive(Debug, Clone, Args)]
pub struct CheckpointBenchFlags {
    #[command(flatten)]
    shape: ShapeFlags,
    /// Saves to time, and as many restores
    #[arg(long, value_name = "N", default_value_t = CheckpointBench::default().saves)]
    saves: usize,
    /// Folder, on the disk to be measured, in which they are written and removed again
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Where to compute [default: the best one compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceSpec>,
    /// End standard output with one JSON object; the lines for people go to standard error
    #[arg(long)]
    json: bool,
}

pub(super) fn run(flags: &CheckpointBenchFlags, out: &mut impl Write) -> Result<(), Error> {
    let (model, _) = flags.shape.resolve(1)?;
    let bench = CheckpointBench {
        model,
        saves: flags.saves,
        dir: flags.dir.clone(),
    };
    bench.validate()?;
    let spec = flags.device.clone().map_or_else(DeviceSpec::best, Ok)?;
    tell(&bench.measure(&spec)?, flags.json, out)
}
