//! `cargo xtask gpu`: a folder that carries the program, its tests and the benchmark to a bare machine
//! with a GPU, where neither Rust nor a network is at hand, and one script that runs all of it there.

mod artifacts;
mod libraries;

use std::path::{Path, PathBuf};

use clap::Args;
use xshell::{Shell, cmd};

use crate::bench;
use crate::device::Backend;
use crate::feature_set::{self, WORKSPACE};
use crate::report::Report;
use crate::workspace::Workspace;

/// More than this does not travel well: 60 MB.
const LIMIT: u64 = 60_000_000;
const SCRIPT: &str = include_str!("run.sh");

#[derive(Args)]
pub struct GpuArgs {
    /// The device to pack for
    #[arg(long, default_value = "cuda")]
    device: Backend,
    /// Further features to compile in; `--features ""` for a device that compiles no kernels
    #[arg(
        long,
        value_name = "FEATURES",
        value_delimiter = ',',
        default_value = "fusion,autotune"
    )]
    features: Vec<String>,
    /// The test target of hybridnorm-train that holds the device tests of every crate
    #[arg(long, default_value = "pack")]
    test: String,
    /// Run the script here when the folder is packed
    #[arg(long)]
    run: bool,
}

/// What is built: the program and the one test program.
struct Built {
    program: PathBuf,
    tests: PathBuf,
}

pub fn run(shell: &Shell, args: &GpuArgs) -> Result<Report, String> {
    let workspace = Workspace::read(shell)?;
    args.device.known(&workspace)?;
    let folder = workspace.target_directory.join("gpu");
    let mut report = Report::new("gpu");
    match build(shell, args, &workspace) {
        Ok(built) => {
            let packed = pack(shell, args, &built, &folder);
            let packed = packed.and_then(|()| check_size(&folder));
            if report.record("pack", packed) && args.run {
                let script = folder.join("run.sh");
                let out = folder.join("out");
                report.step("run", cmd!(shell, "bash {script}").env("OUT", out));
            }
        }
        Err(reason) => {
            report.record("build", Err(reason));
        }
    }
    report.print();
    Ok(report)
}

/// One command, so that the program and the tests share one build.
fn build(shell: &Shell, args: &GpuArgs, workspace: &Workspace) -> Result<Built, String> {
    let more = args.features.iter().filter(|feature| !feature.is_empty());
    let features = more.fold(
        feature_set::of(std::slice::from_ref(&args.device)),
        |all, feature| format!("{all},hybridnorm-train/{feature},hybridnorm-testing/{feature}"),
    );
    let [train, testing] = WORKSPACE;
    let test = &args.test;
    let required = workspace.required_features(train, test)?;
    let features = required
        .iter()
        .fold(features, |all, feature| format!("{all},{train}/{feature}"));
    let messages = cmd!(
        shell,
        "cargo test --no-run --release -p {train} -p {testing} --test {test} --features {features}"
    )
    .arg("--message-format=json-render-diagnostics")
    .read()
    .map_err(|error| error.to_string())?;
    Ok(Built {
        program: artifacts::executable(&messages, train, "bin")?,
        tests: artifacts::executable(&messages, test, "test")?,
    })
}

/// Fills `folder` with `pack.tar.xz`, `run.sh` and the name of the device.
///
/// xz, not zstd: the machine unpacks with Python, whose standard library has `lzma` in every version
/// but zstd only from 3.14 on. Its dictionary spans both programs, which hold the same Burn: the second
/// adds little.
fn pack(shell: &Shell, args: &GpuArgs, built: &Built, folder: &Path) -> Result<(), String> {
    let said = |error: xshell::Error| error.to_string();
    let stage = folder.join("stage");
    shell.remove_path(folder).map_err(said)?;
    let (bin, lib) = (stage.join("bin"), stage.join("lib"));
    let home = stage.join("crates/hybridnorm-train");
    for new in [&bin, &lib, &home, &stage.join("bench")] {
        shell.create_dir(new).map_err(said)?;
    }

    let xtask = std::env::current_exe().map_err(|error| error.to_string())?;
    for (from, name) in [
        (&built.program, "hybridnorm-train"),
        (&built.tests, "tests"),
        (&xtask, "xtask"),
    ] {
        let to = bin.join(name);
        cmd!(shell, "strip --strip-all -o {to} {from}")
            .run()
            .map_err(said)?;
        for library in libraries::to_carry(&cmd!(shell, "ldd {from}").quiet().read().map_err(said)?)
        {
            shell.copy_file(library, &lib).map_err(said)?;
        }
    }
    cmd!(shell, "cp -r crates/hybridnorm-train/reference {home}")
        .run()
        .map_err(said)?;
    for script in bench::YARDSTICKS {
        shell.copy_file(script, stage.join("bench")).map_err(said)?;
    }
    // The test program looks for its files where it was built.
    let root = shell.current_dir().display().to_string();
    shell.write_file(stage.join("root"), root).map_err(said)?;

    let archive = folder.join("pack.tar.xz");
    let xz = "xz --threads=1 --lzma2=preset=9,dict=256MiB";
    cmd!(shell, "tar -C {stage} -I {xz} -cf {archive} .")
        .run()
        .map_err(said)?;
    shell.remove_path(&stage).map_err(said)?;
    shell
        .write_file(folder.join("run.sh"), SCRIPT)
        .map_err(said)?;
    shell
        .write_file(folder.join("device"), format!("{}\n", args.device))
        .map_err(said)
}

/// Prints what lies in the folder and refuses it when that is too much to carry.
fn check_size(folder: &Path) -> Result<(), String> {
    let mut total = 0;
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    for entry in entries {
        let entry = entry.map_err(|error| error.to_string())?;
        let size = entry.metadata().map_err(|error| error.to_string())?.len();
        eprintln!("{size:>12} {}", entry.path().display());
        total += size;
    }
    eprintln!("{total:>12} bytes in all");
    within_limit(total)
}

fn within_limit(total: u64) -> Result<(), String> {
    match total <= LIMIT {
        true => Ok(()),
        false => Err(format!(
            "{total} bytes are too many to carry: allowed are {LIMIT}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_above_the_limit_is_refused() {
        assert!(within_limit(LIMIT).is_ok());
        assert!(within_limit(LIMIT + 1).unwrap_err().contains("60000001"));

        let folder = tempfile::tempdir().unwrap();
        let archive = std::fs::File::create(folder.path().join("pack.tar.xz")).unwrap();
        archive.set_len(LIMIT - 1).unwrap();
        assert!(check_size(folder.path()).is_ok());
        std::fs::write(folder.path().join("run.sh"), "ab").unwrap();
        assert!(check_size(folder.path()).is_err());
    }
}
