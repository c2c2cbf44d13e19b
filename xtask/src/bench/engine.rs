//! The two programs that are measured, and how their answers are read.

use std::path::PathBuf;
use std::process::Command;

use serde::Deserialize;
use xshell::{Shell, cmd};

use super::shape::{Measure, Shape};

const STEP: &str = "bench/torch_train_step.py";
const GENERATE: &str = "bench/torch_generate.py";
const CHECKPOINT: &str = "bench/torch_checkpoint.py";
/// The scripts that ours is measured beside.
pub const YARDSTICKS: [&str; 3] = [STEP, GENERATE, CHECKPOINT];

/// The last line of either program's standard output.
#[derive(Clone, Debug, Deserialize)]
pub struct Sample {
    /// Tokens in a second, or MiB where files are written.
    #[serde(alias = "tokens_per_s", alias = "mib_per_s")]
    pub rate: f64,
    /// Both programs print it; the shapes are the same only if these are.
    pub params: Option<u64>,
    /// What was measured, in the program's words: PyTorch's version.
    pub engine: Option<String>,
    peak_bytes: Option<f64>,
    peak_gib: Option<f64>,
}

impl Sample {
    pub fn peak_gib(&self) -> Option<f64> {
        let gib = self.peak_bytes.map(|bytes| bytes / f64::from(1 << 30));
        self.peak_gib.or(gib)
    }
}

/// What both programs measure.
pub struct What {
    pub steps: usize,
    pub precision: String,
    pub forward_only: bool,
    /// Whether PyTorch compiles its model.
    pub compiled: bool,
}

/// A program and its flags, to which those of a shape are added.
pub struct Engine {
    program: PathBuf,
    flags: Vec<String>,
}

impl Engine {
    pub fn ours(program: PathBuf, device: &str, what: &What) -> Self {
        let flags = ["bench", "step", "--json", "--device", device];
        let precision = ["--precision", &what.precision];
        Self::new(program, &[&flags[..], &precision].concat(), what)
    }

    /// `bench generate` or `bench checkpoint`: sixteen tokens, or one save, for each step.
    pub fn ours_other(program: PathBuf, device: &str, measure: Measure, steps: usize) -> Self {
        let name = match measure {
            Measure::Checkpoint => "checkpoint",
            Measure::Step | Measure::Generate => "generate",
        };
        let flags = ["bench", name, "--json", "--device", device];
        Self::other(program, &flags, measure, steps)
    }

    /// Its yardstick, where that of a step can run.
    pub fn torch_other(python: &str, device: &str, measure: Measure, steps: usize) -> Self {
        let script = match measure {
            Measure::Checkpoint => CHECKPOINT,
            Measure::Step | Measure::Generate => GENERATE,
        };
        let flags = [script, "--device", device];
        Self::other(PathBuf::from(python), &flags, measure, steps)
    }

    fn other(program: PathBuf, flags: &[&str], measure: Measure, steps: usize) -> Self {
        let mut flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        flags.extend(match measure {
            Measure::Checkpoint => ["--saves".to_owned(), steps.to_string()],
            Measure::Step | Measure::Generate => ["--tokens".to_owned(), (16 * steps).to_string()],
        });
        Self { program, flags }
    }

    /// The yardstick, or why it cannot run here.
    pub fn torch(shell: &Shell, python: &str, device: &str, what: &What) -> Result<Self, String> {
        let version = "import torch; print(torch.__version__, torch.cuda.is_available())";
        let found = cmd!(shell, "{python} -c {version}")
            .quiet()
            .ignore_stderr()
            .read();
        let Ok(found) = found else {
            return Err(match cmd!(shell, "{python} --version").quiet().read() {
                Ok(version) => format!("{version} has no torch: pip install torch"),
                Err(_) => format!("no `{python}`"),
            });
        };
        if device.starts_with("cuda") && found.ends_with("False") {
            return Err(format!("torch {found} sees no CUDA device"));
        }
        let mut flags = vec![STEP, "--dtype", &what.precision, "--device", device];
        if what.compiled {
            flags.push("--compile");
        }
        Ok(Self::new(PathBuf::from(python), &flags, what))
    }

    fn new(program: PathBuf, flags: &[&str], what: &What) -> Self {
        let mut flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        flags.extend(["--steps".to_owned(), what.steps.to_string()]);
        if what.forward_only {
            flags.push("--forward-only".to_owned());
        }
        Self { program, flags }
    }

    pub fn run(&self, shell: &Shell, shape: &Shape) -> Result<Sample, String> {
        let (program, flags, shape) = (&self.program, &self.flags, shape.flags());
        let command = cmd!(shell, "{program} {flags...} {shape...}");
        eprintln!("$ {command}");
        let output = Command::from(command)
            .output()
            .map_err(|error| format!("could not start: {error}"))?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors.lines().rfind(|line| !line.trim().is_empty());
            return Err(format!(
                "{}: {}",
                output.status,
                last.unwrap_or("no message")
            ));
        }
        parse(&String::from_utf8_lossy(&output.stdout))
    }
}

fn parse(output: &str) -> Result<Sample, String> {
    let last = output.trim_end().lines().next_back().unwrap_or_default();
    let sample: Sample =
        serde_json::from_str(last).map_err(|error| format!("last line `{last}`: {error}"))?;
    match sample.rate.is_finite() && sample.rate > 0.0 {
        true => Ok(sample),
        false => Err(format!("the speed is {}", sample.rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_the_answer() {
        let sample =
            parse("step 1\n{\"tokens_per_s\": 10.5, \"step_ms\": 3, \"peak_bytes\": 1073741824}\n")
                .unwrap();
        assert_eq!(sample.rate, 10.5);
        assert_eq!(sample.peak_gib(), Some(1.0));
        let torch = parse("{\"tokens_per_s\": 10, \"params\": 7, \"peak_gib\": 2.5}").unwrap();
        assert_eq!((torch.params, torch.peak_gib()), (Some(7), Some(2.5)));
    }

    #[test]
    fn what_is_no_measurement_is_refused() {
        for output in [
            "",
            "done",
            "{}",
            "{\"tokens_per_s\": null}",
            "{\"tokens_per_s\": 0}",
            "{\"tokens_per_s\": 1}\ntrailing",
        ] {
            assert!(parse(output).is_err(), "{output:?} was taken for a sample");
        }
    }

    #[test]
    fn a_missing_python_is_told_from_a_missing_torch() {
        let shell = Shell::new().unwrap();
        let what = What {
            steps: 1,
            precision: "f32".to_owned(),
            forward_only: false,
            compiled: false,
        };
        let reason = |python: &str| Engine::torch(&shell, python, "cpu", &what).err().unwrap();
        assert_eq!(reason("no-such-python"), "no `no-such-python`");
        // Knows `--version`, but no Python module.
        assert!(reason("cargo").ends_with("has no torch: pip install torch"));
    }
}
