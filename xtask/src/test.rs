//! `cargo xtask test`: every test of the workspace, on the devices asked for.
//!
//! Nothing may look as if it ran when it did not: the built program says which devices are there, the
//! cases of the others are left out and reported, and a device that is there must have cases.

use std::process::{Command, Stdio};

use clap::Args;
use xshell::{Cmd, Shell, cmd};

use crate::case;
use crate::device::{Backend, Devices};
use crate::feature_set::{self, FUSED};
use crate::found::{self, Standing};
use crate::report::Report;
use crate::tool;
use crate::workspace::Workspace;

#[derive(Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub devices: Devices,
    /// Devices whose absence is a failure; compiled in like those of `--device`
    #[arg(long, value_name = "DEVICE", value_delimiter = ',')]
    pub require: Vec<Backend>,
    /// Leave out the test of kernel fusion and autotune, which needs a feature set of its own
    #[arg(long)]
    pub no_fused: bool,
    /// Use `cargo test` even where cargo-nextest is installed: a device then compiles its kernels once for
    /// each test program, not once for each test
    #[arg(long)]
    pub cargo_test: bool,
    /// Build, and run nothing
    #[arg(long)]
    pub no_run: bool,
    /// Only tests with one of these in their name
    #[arg(value_name = "NAME", conflicts_with = "no_run")]
    pub names: Vec<String>,
}

/// Doc-tests come first: nextest does not run them, and its summary should be the last line.
pub fn run(shell: &Shell, args: &TestArgs) -> Result<Report, String> {
    let workspace = Workspace::read(shell)?;
    let asked = args.devices.with(&args.require);
    for backend in &asked {
        backend.known(&workspace)?;
    }
    let features = feature_set::of(&asked);
    let all = ["--release", "--workspace", "--features", &features];
    let names = &args.names;
    let mut report = Report::new("test");

    // Without it there is nothing to ask and nothing to run.
    if !report.step("build", cmd!(shell, "cargo test --no-run {all...}")) || args.no_run {
        return Ok(report);
    }

    let program = workspace.program("hybridnorm-train");
    let Standing { present, absent } = match found::ask(shell, &program) {
        Ok(entries) => found::sort(&entries, &asked),
        Err(reason) => {
            // The cases of every device then run, and those of an absent one fail.
            report.record("devices", Err(reason));
            Standing::default()
        }
    };
    for (device, reason) in &absent {
        let required = args.require.iter().any(|name| name.name() == device);
        report.not_run(format!("device {device}"), reason, required);
    }
    let listed = list(cmd!(
        shell,
        "cargo test --lib --bins --tests {all...} -- --list"
    ));
    for (backend, adapters) in &present {
        let name = format!("device {backend}: {adapters}");
        match &listed {
            Ok(tests) => match count(tests, backend) {
                0 => {
                    let required = args.require.contains(backend);
                    report.not_run(name, "no test has a case for it", required);
                }
                cases => report.note(format!("{name}, {cases} cases")),
            },
            Err(reason) => {
                report.record(name, Err(reason.clone()));
            }
        }
    }

    transformers(shell, &mut report);

    report.step(
        "doc-tests",
        cmd!(
            shell,
            "cargo test --doc --no-fail-fast {all...} -- {names...}"
        ),
    );
    let runner = Runner {
        shell,
        absent: absent.iter().map(|(device, _)| device.as_str()).collect(),
        devices: workspace.backends()?.len(),
        nextest: !args.cargo_test && nextest(shell),
    };
    fused(&mut report, &runner, args, &present);

    // What did not run stands above the runner's own summary, which is the last word.
    report.print();
    report.step("tests", runner.command(&all, names));
    Ok(report)
}

/// Says whether exported models will be held against transformers. The tests look for the same interpreter, and install the packages
/// themselves where they are required.
fn transformers(shell: &Shell, report: &mut Report) {
    const STEP: &str = "comparison with transformers";
    let python = std::env::var("HYBRIDNORM_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let required = std::env::var("HYBRIDNORM_REQUIRE_PYTHON").is_ok_and(|value| value == "1");
    if !required && !tool::answers(cmd!(shell, "{python} -c 'import torch, transformers'")) {
        let hint = format!(
            "{python} has no torch and transformers; HYBRIDNORM_REQUIRE_PYTHON=1 installs them"
        );
        report.not_run(STEP, hint, false);
    }
}

fn nextest(shell: &Shell) -> bool {
    let there = tool::answers(cmd!(shell, "cargo nextest --version"));
    if !there {
        eprintln!("xtask: {}; `cargo test` runs the tests", tool::NO_NEXTEST);
    }
    there
}

/// The one test with kernel fusion and autotune on. Both are compile-time features of Burn, so it is
/// one more feature set.
fn fused(report: &mut Report, runner: &Runner<'_>, args: &TestArgs, present: &[(Backend, String)]) {
    const STEP: &str = "kernel fusion and autotune";
    let compiling = |(backend, _): &(Backend, String)| backend.compiles_kernels();
    if args.no_fused {
        report.not_run(STEP, "--no-fused", false);
    } else if !args.names.is_empty() && !args.names.iter().any(|name| name == "fused") {
        report.not_run(
            STEP,
            "only some tests were asked for; this is `fused`",
            false,
        );
    } else if !present.iter().any(compiling) {
        report.not_run(STEP, "no device that compiles kernels", false);
    } else {
        let backends = args.devices.with(&args.require);
        let features = feature_set::fused(&backends);
        let mut set = vec!["--release", "--test", "fused", "--features", &features];
        set.extend(FUSED.iter().flat_map(|package| ["-p", package]));
        report.step(STEP, runner.command(&set, &[]));
    }
}

/// nextest, or `cargo test` where it is missing.
struct Runner<'a> {
    shell: &'a Shell,
    /// Devices whose cases are left out.
    absent: Vec<&'a str>,
    /// How many devices there are at all.
    devices: usize,
    nextest: bool,
}

impl Runner<'_> {
    fn command(&self, set: &[&str], names: &[String]) -> Cmd<'_> {
        let absent = &self.absent;
        if self.nextest {
            // nextest has profiles of its own, and so another word for cargo's.
            let set = set.iter().flat_map(|flag| match *flag {
                "--release" => vec!["--cargo-profile", "release"],
                flag => vec![flag],
            });
            let filter = case::nextest_filter(absent);
            return cmd!(
                self.shell,
                "cargo nextest run --no-fail-fast {set...} {filter...} {names...}"
            );
        }
        let skips = case::libtest_skips(absent, self.devices);
        // `--test` already says which.
        let targets: &[&str] = match set.contains(&"--test") {
            true => &[],
            false => &["--lib", "--bins", "--tests"],
        };
        cmd!(
            self.shell,
            "cargo test --no-fail-fast {targets...} {set...} -- {skips...} {names...}"
        )
    }
}

/// The names of all tests in the built test programs.
fn list(command: Cmd<'_>) -> Result<Vec<String>, String> {
    let output = Command::from(command)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("could not list the tests: {error}"))?;
    if !output.status.success() {
        return Err(format!("could not list the tests: {}", output.status));
    }
    Ok(tests(&String::from_utf8_lossy(&output.stdout)))
}

fn tests(listing: &str) -> Vec<String> {
    let names = listing
        .lines()
        .filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

fn count(tests: &[String], backend: &Backend) -> usize {
    let cases = tests.iter().filter_map(|test| case::device(test));
    cases.filter(|device| *device == backend.name()).count()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn cases_are_counted_in_a_listing() {
        let tests = tests(
            "norm::rms::case_1_flex: test\nnorm::rms::case_2_wgpu: test\nplain: test\n\n3 tests, 0 benchmarks\n",
        );
        assert_eq!(tests.len(), 3);
        assert_eq!(count(&tests, &"wgpu".parse().unwrap()), 1);
        assert_eq!(count(&tests, &"cuda".parse().unwrap()), 0);
    }

    #[test]
    fn both_runners_leave_out_the_cases_of_an_absent_device() {
        let shell = Shell::new().unwrap();
        let mut runner = Runner {
            shell: &shell,
            absent: vec!["wgpu"],
            devices: 9,
            nextest: true,
        };
        let names = ["norm".to_owned()];
        let set = ["--release", "--workspace"];
        assert_eq!(
            runner.command(&set, &names).to_string(),
            r#"cargo nextest run --no-fail-fast --cargo-profile release --workspace -E "not test(/::case_\\d+_(wgpu)(::|$)/)" norm"#
        );
        runner.nextest = false;
        let command = runner.command(&set, &names).to_string();
        assert!(
            command.contains("--lib --bins --tests --release --workspace -- --skip ::case_1_wgpu")
        );
        assert!(command.ends_with("--skip ::case_9_wgpu norm"), "{command}");

        let fused = ["--release", "-p", "a", "--test", "fused"];
        let command = runner.command(&fused, &[]).to_string();
        assert!(!command.contains("--lib"), "{command}");
    }
}
