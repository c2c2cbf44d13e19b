//! `bench`: how fast this machine computes, and in how much memory.

use std::fmt::Display;
use std::io::{self, Write};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::bench_checkpoint::{self, CheckpointBenchFlags};
use super::bench_generate::{self, GenerateBenchFlags};
use super::bench_placements::{self, PlacementsFlags};
use super::flags::optimizer_help;
use super::shape_flags::ShapeFlags;
use crate::bench::StepBench;
use crate::device::DeviceSpec;
use crate::engine::{Precision, Recompute, Stages};
use crate::error::Error;
use crate::recipe::OptimizerName;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// One training step on random tokens: forward, loss, backward, gradient norm, clipping, optimiser
    Step(Box<StepFlags>),
    /// That step, and where its time goes by operation and layer
    Profile(Box<StepFlags>),
    /// That step with one placement after the other: what the norms cost
    Placements(PlacementsFlags),
    /// Greedy generation with a key/value cache, after prompts of random tokens
    Generate(Box<GenerateBenchFlags>),
    /// Saving weights and moments to the disk, and restoring them
    Checkpoint(Box<CheckpointBenchFlags>),
}

/// The flags of `bench step`. The defaults are those of [`StepBench`].
#[derive(Debug, Clone, Args)]
pub struct StepFlags {
    #[command(flatten)]
    shape: ShapeFlags,
    /// Tokens in a sequence
    #[arg(long, value_name = "N", default_value_t = StepBench::default().seq)]
    seq: usize,
    /// Sequences in a step
    #[arg(long, value_name = "N", default_value_t = StepBench::default().batch)]
    batch: usize,
    /// Sequences in one forward and backward pass; divides --batch [default: all]
    #[arg(long, value_name = "N")]
    micro_batch: Option<usize>,
    /// What is computed twice to save memory: none, block
    #[arg(long, value_name = "WHAT", default_value = "none")]
    recompute: Recompute,
    /// Rows of logits that exist at once [default: as many as make 16 MiB, or 512 where that is more]
    #[arg(long, value_name = "N")]
    logit_rows: Option<usize>,
    /// Optimiser
    #[arg(long, value_name = "NAME", help = optimizer_help())]
    optimizer: Option<OptimizerName>,
    /// Type in which matrices are multiplied: f32, bf16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    precision: Precision,
    /// Time the pass over a text and its loss alone, without gradients
    #[arg(long)]
    forward_only: bool,
    /// Look at every layer in every second step, as `train --diagnostics` does, and tell what that takes
    #[arg(long)]
    diagnostics: bool,
    /// Steps to time
    #[arg(long, value_name = "N", default_value_t = StepBench::default().steps)]
    steps: u64,
    /// Steps before those, which are not timed
    #[arg(long, value_name = "N", default_value_t = StepBench::default().warmup)]
    warmup: u64,
    /// Where to compute [default: the best one compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<DeviceSpec>,
    /// End standard output with one JSON object; the lines for people go to standard error
    #[arg(long)]
    json: bool,
}

pub(super) fn run(bench: &Bench, out: &mut impl Write) -> Result<(), Error> {
    match bench {
        Bench::Step(flags) => step(flags, false, out),
        Bench::Profile(flags) => step(flags, true, out),
        Bench::Placements(flags) => bench_placements::run(flags, out),
        Bench::Generate(flags) => bench_generate::run(flags, out),
        Bench::Checkpoint(flags) => bench_checkpoint::run(flags, out),
    }
}

/// Ends `out` with `report`: in words, or as one JSON object with the words on standard error.
pub(super) fn tell<R: Display + Serialize>(
    report: &R,
    json: bool,
    out: &mut impl Write,
) -> Result<(), Error> {
    if !json {
        return write!(out, "{report}").map_err(Error::Output);
    }
    // Where standard error is gone, the JSON object says it all.
    let _ = write!(io::stderr(), "{report}");
    let text = serde_json::to_string(report).map_err(|error| Error::Output(error.into()))?;
    writeln!(out, "{text}").map_err(Error::Output)
}

fn step(flags: &StepFlags, by_layer: bool, out: &mut impl Write) -> Result<(), Error> {
    let bench = flags.resolve()?;
    let spec = flags.device.clone().map_or_else(DeviceSpec::best, Ok)?;
    let mut tell = |text: String| {
        if flags.json {
            // Where standard error is gone, the JSON object says it all.
            let _ = write!(io::stderr(), "{text}");
            return Ok(());
        }
        write!(out, "{text}")
            .and_then(|()| out.flush())
            .map_err(Error::Output)
    };
    tell(bench.to_string())?;
    let report = bench.measure(&spec)?;
    tell(report.to_string())?;
    if by_layer {
        tell(format!("\n{}", report.profile))?;
    }
    if flags.json {
        let text = serde_json::to_string(&report).map_err(|error| Error::Output(error.into()))?;
        writeln!(out, "{text}").map_err(Error::Output)?;
    }
    Ok(())
}

impl StepFlags {
    /// Resolves and validates the measurement.
    fn resolve(&self) -> Result<StepBench, Error> {
        let (model, preset) = self.shape.resolve(self.seq)?;
        let bench = StepBench {
            model,
            preset,
            seq: self.seq,
            batch: self.batch,
            micro_batch: self.micro_batch.unwrap_or(self.batch),
            stages: Stages {
                recompute: self.recompute,
                logit_rows: self.logit_rows,
                precision: self.precision,
            },
            optimizer: self.optimizer.unwrap_or_default(),
            forward_only: self.forward_only,
            diagnostics: self.diagnostics,
            steps: self.steps,
            warmup: self.warmup,
        };
        bench.validate()?;
        Ok(bench)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use hybridnorm_core::DecoderConfig;
    use hybridnorm_moe::SparseConfig;

    use super::*;
    use crate::presets;

    #[derive(Parser)]
    struct Program {
        #[command(subcommand)]
        bench: Bench,
    }

    fn resolve(args: &str) -> Result<StepBench, Error> {
        let args = ["bench", "step"].into_iter().chain(args.split_whitespace());
        let Bench::Step(flags) = Program::try_parse_from(args).unwrap().bench else {
            panic!("not a step");
        };
        flags.resolve()
    }

    #[test]
    fn without_flags_it_is_the_default_shape() {
        assert_eq!(resolve("").unwrap(), StepBench::default());
    }

    #[test]
    fn every_size_has_its_flag() {
        let args = "--d-model 48 --layers 3 --heads 6 --kv-heads 2 --ffn 40 --vocab 99 --tied --placement pre \
                    --seq 300 --batch 6 --micro-batch 2 --recompute block --logit-rows 64 --optimizer muon \
                    --precision bf16 --forward-only --steps 7 --warmup 0";
        let bench = resolve(args).unwrap();
        let model = DecoderConfig {
            n_kv_heads: 2,
            d_ff: 40,
            max_seq_len: 300,
            placement: "pre".parse().unwrap(),
            ..DecoderConfig::new(99, 48, 6, 3)
        };
        let expected = StepBench {
            model: model.into(),
            preset: None,
            seq: 300,
            batch: 6,
            micro_batch: 2,
            stages: Stages {
                recompute: Recompute::Block,
                logit_rows: Some(64),
                precision: Precision::Bf16,
            },
            optimizer: OptimizerName::Muon,
            forward_only: true,
            diagnostics: false,
            steps: 7,
            warmup: 0,
        };
        assert_eq!(bench, expected);
    }

    #[test]
    fn key_value_heads_follow_the_heads_unless_a_preset_has_them() {
        assert_eq!(resolve("--heads 4").unwrap().model.decoder.n_kv_heads, 4);
        let demo = resolve("--preset demo --heads 8").unwrap().model.decoder;
        assert_eq!((demo.n_heads, demo.n_kv_heads), (8, 2));
    }

    #[test]
    fn flags_override_the_preset() {
        let bench = resolve("--preset 151m --layers 2 --seq 8192").unwrap();
        let published = presets::find("151m").unwrap().model.decoder;
        let expected = DecoderConfig {
            n_layers: 2,
            max_seq_len: 8192,
            ..published
        };
        assert_eq!((bench.model, bench.preset), (expected.into(), Some("151m")));
    }

    #[test]
    fn experts_come_from_flags_or_from_a_preset() {
        let sparse = |args: &str| resolve(args).unwrap().model.sparse;
        assert_eq!(sparse(""), None);
        let flags = "--experts 8 --top-k 2 --ffn 512";
        assert_eq!(sparse(flags), Some(SparseConfig::new(8, 2, 512)));
        let preset = "--preset moe-demo --experts 4 --ffn 64";
        assert_eq!(sparse(preset), Some(SparseConfig::new(4, 2, 64)));
        for (args, field) in [
            ("--experts 8", "experts"),
            ("--top-k 2", "top_k"),
            ("--experts 8 --top-k 9", "sparse.router.top_k"),
        ] {
            let error = resolve(args).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
