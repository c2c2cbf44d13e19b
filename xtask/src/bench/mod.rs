//! `cargo xtask bench`: training steps, generation and checkpoints of ours beside those of PyTorch, tokenizing beside Hugging Face
//! tokenizers, in the same minutes.
//!
//! The two run alternately, so that a neighbour who slows the machine down slows both.

mod engine;
mod prepare;
mod shape;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use xshell::{Shell, cmd};

use crate::device::Device;
use crate::parity::absolute;
use crate::report::Report;
use crate::workspace::{self, Workspace};
use engine::{Engine, Sample, What};
use shape::{Measure, Shape};
use table::Row;

pub use engine::YARDSTICKS;

#[derive(Args)]
pub struct BenchArgs {
    /// Shapes: `6m`, `demo`, `151m`, `1.2b`, `moe` (a dense model and 4 to 256 experts), `generate` (text with a
    /// key/value cache in place of training steps, one at a time and eight), `checkpoint` (weights and moments saved to the
    /// disk), and what is changed of them, such as `151m:seq=4096,batch=2`
    #[arg(value_name = "SHAPE", default_value = "6m", value_parser = shape::shapes)]
    shapes: Vec<Vec<Shape>>,
    /// Device of ours, by its Cargo feature
    #[arg(long, default_value = "flex")]
    device: Device,
    /// Further features to compile in, such as `fusion,autotune`
    #[arg(long, value_name = "FEATURES", conflicts_with = "program")]
    features: Option<String>,
    /// Measured runs of each program
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measured steps in each run; sixteen times as many tokens where text is generated, as many saves of a checkpoint
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Type in which matrices are multiplied: f32, bf16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// Measure the forward pass and its loss alone
    #[arg(long)]
    forward_only: bool,
    /// Print where the time of ours goes, by operation and layer, and measure nothing else
    #[arg(long, conflicts_with_all = ["forward_only", "compiled", "json"])]
    profile: bool,
    /// Measure `prepare` beside Hugging Face tokenizers on the workspace's sources, and nothing else
    #[arg(long, conflicts_with_all = ["profile", "forward_only", "compiled", "json"])]
    prepare: bool,
    /// Let PyTorch compile its model
    #[arg(long)]
    compiled: bool,
    /// Start no run after so many seconds; what is left out is reported
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// Fail when PyTorch cannot run, instead of leaving its column empty
    #[arg(long)]
    require_torch: bool,
    /// The Python that has PyTorch
    #[arg(long, default_value = "python3")]
    python: String,
    /// Write every figure to this file
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    json: Option<PathBuf>,
    /// Measure this program and build nothing; the folder it is called in holds `bench/`
    #[arg(long, value_name = "FILE", value_parser = absolute)]
    program: Option<PathBuf>,
}

pub fn run(args: &BenchArgs) -> Result<Report, String> {
    let mut report = Report::new("bench");
    let (shell, program) = match &args.program {
        // Where the program was carried to, there is no workspace.
        Some(program) => (
            Shell::new().map_err(|error| error.to_string())?,
            program.clone(),
        ),
        None => {
            let shell = workspace::shell()?;
            let workspace = Workspace::read(&shell)?;
            args.device.backend.known(&workspace)?;
            let program = workspace.program("hybridnorm-train");
            if !report.step("build", build(&shell, args)) {
                return Ok(report);
            }
            (shell, program)
        }
    };

    if args.prepare {
        let folder = std::env::temp_dir().join("hybridnorm-bench");
        let command = prepare::command(&shell, &program, &args.python, &folder)?;
        report.step("prepare", command);
        return Ok(report);
    }
    let device = args.device.to_string();
    if args.profile {
        let steps = args.steps.to_string();
        for shape in args.shapes.iter().flatten() {
            let flags = shape.flags();
            let command = cmd!(
                shell,
                "{program} bench profile --device {device} --steps {steps} {flags...}"
            );
            report.step(format!("profile of {shape}"), command);
        }
        return Ok(report);
    }
    let what = What {
        steps: args.steps,
        precision: args.precision.clone(),
        forward_only: args.forward_only,
        compiled: args.compiled,
    };
    let ours_other = |measure| Engine::ours_other(program.clone(), &device, measure, args.steps);
    let ours = Engine::ours(program.clone(), &device, &what);
    let torch_device = match args.device.backend.name() {
        "cuda" => device.as_str(),
        _ => "cpu",
    };
    let torch = Engine::torch(&shell, &args.python, torch_device, &what);
    let torch_other =
        |measure| Engine::torch_other(&args.python, torch_device, measure, args.steps);
    if let Err(reason) = &torch {
        report.not_run("PyTorch", reason, args.require_torch);
    }

    let deadline = args
        .time_limit
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut rows: Vec<Row> = Vec::new();
    for shape in args.shapes.iter().flatten() {
        let row = measure(shape, args.rounds, deadline, |side| {
            let run = |engine: &Engine| engine.run(&shell, shape);
            Some(match (side, shape.measure, &torch) {
                (Side::Ours, Measure::Step, _) => run(&ours),
                (Side::Ours, other, _) => run(&ours_other(other)),
                (Side::Torch, Measure::Step, Ok(torch)) => run(torch),
                (Side::Torch, other, Ok(_)) => run(&torch_other(other)),
                (Side::Torch, _, Err(_)) => return None,
            })
        });
        report.record(shape.to_string(), row.result());
        rows.push(row);
        // After each shape: whoever is stopped half-way keeps the figures so far.
        if let Some(path) = &args.json {
            let written = write(
                &shell,
                path,
                [&device, torch_device],
                torch.as_ref().err(),
                &rows,
            );
            report.record(format!("write {}", path.display()), written);
        }
    }
    report.print();
    println!(
        "{}",
        table::markdown([&device, torch_device], torch.as_ref().err(), &rows)
    );
    if let Some(scaling) = table::scaling(&rows) {
        println!("{scaling}");
    }
    Ok(report)
}

fn build<'a>(shell: &'a Shell, args: &BenchArgs) -> xshell::Cmd<'a> {
    let mut features = args.device.backend.to_string();
    if let Some(more) = &args.features {
        features = format!("{features},{more}");
    }
    cmd!(
        shell,
        "cargo build --release -p hybridnorm-train --features {features}"
    )
}

#[derive(Clone, Copy)]
enum Side {
    Ours,
    Torch,
}

/// Ours, torch, ours, torch, ... until both have their rounds, one fails, or time is up.
fn measure(
    shape: &Shape,
    rounds: u32,
    deadline: Option<Instant>,
    run: impl Fn(Side) -> Option<Result<Sample, String>>,
) -> Row {
    let mut row = Row::new(shape.clone(), rounds);
    for _ in 0..rounds {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            row.out_of_time = true;
            break;
        }
        row.ours.add(run(Side::Ours));
        row.torch.add(run(Side::Torch));
        if row.result().is_err() {
            break;
        }
    }
    row
}

fn write(
    shell: &Shell,
    path: &Path,
    devices: [&str; 2],
    no_torch: Option<&String>,
    rows: &[Row],
) -> Result<(), String> {
    let rows: Vec<_> = rows.iter().map(Row::json).collect();
    let [ours, torch] = devices;
    let all = json!({
        "device": ours,
        "torch_device": torch,
        "torch_not_run": no_torch,
        "shapes": rows,
    });
    shell
        .write_file(path, format!("{all:#}\n"))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn sample(rate: f64) -> Result<Sample, String> {
        serde_json::from_value(json!({ "tokens_per_s": rate })).map_err(|e| e.to_string())
    }

    #[test]
    fn the_two_programs_alternate() {
        let order = RefCell::new(String::new());
        let row = measure(&"6m".parse().unwrap(), 3, None, |side| {
            order.borrow_mut().push(match side {
                Side::Ours => 'o',
                Side::Torch => 't',
            });
            Some(sample(1.0))
        });
        assert_eq!(order.into_inner(), "ototot");
        assert!(row.result().is_ok());
    }

    #[test]
    fn a_failure_ends_a_shape_and_a_missing_torch_does_not() {
        let failed = measure(&"6m".parse().unwrap(), 3, None, |_| {
            Some(Err("boom".to_owned()))
        });
        assert!(failed.result().unwrap_err().contains("boom"));
        let alone = measure(&"6m".parse().unwrap(), 3, None, |side| match side {
            Side::Ours => Some(sample(1.0)),
            Side::Torch => None,
        });
        assert!(alone.result().is_ok());
        assert_eq!(alone.ours.rates().len(), 3);
    }

    #[test]
    fn a_shape_without_a_single_run_is_a_failure() {
        let row = measure(&"6m".parse().unwrap(), 3, Some(Instant::now()), |_| {
            Some(sample(1.0))
        });
        assert!(row.result().unwrap_err().contains("time"));
    }
}
