//! `cargo xtask features`: every backend feature, the switches, and each crate alone type-check.
//!
//! A loop of `cargo check`, not cargo-hack: the sets are few and named, and each one costs a check of
//! Burn, so their order and their target directory matter.

use clap::Args;
use xshell::{Shell, cmd};

use crate::report::Report;
use crate::workspace::{SWITCHES, Workspace};

/// The program's feature that is neither a backend nor a switch of one.
const DASHBOARD: &str = "tui";

#[derive(Args)]
pub struct FeaturesArgs {
    /// Only these parts: a backend, `fusion`, `tui`, or a crate [default: all of them]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// One check; several go by the same name.
#[derive(Debug, PartialEq)]
struct Part {
    name: String,
    /// Arguments of `cargo check`.
    check: Vec<String>,
    /// Why it cannot be checked on this system.
    not_here: Option<&'static str>,
}

pub fn run(shell: &Shell, args: &FeaturesArgs) -> Result<Report, String> {
    let workspace = Workspace::read(shell)?;
    let parts = select(parts(&workspace, std::env::consts::OS)?, &args.names)?;
    let target = workspace.target_directory.join("features");
    let mut report = Report::new("features");
    for part in parts {
        if let Some(reason) = part.not_here {
            report.not_run(part.name, reason, !args.names.is_empty());
            continue;
        }
        let check = &part.check;
        let command = cmd!(shell, "cargo check --quiet {check...}")
            // Burn's `cuda`, `cpu` and `rocm` download an LLVM bundle as they build, which no type-check
            // needs; the build script leaves that out for docs.rs.
            .env("DOCS_RS", "1")
            // Its own, so that it neither waits for another build nor evicts one.
            .env("CARGO_TARGET_DIR", &target);
        report.step(check.join(" "), command);
    }
    report.print();
    Ok(report)
}

fn parts(workspace: &Workspace, os: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    // The crates first: with no backend and with flex, so that two checks of Burn serve nearly all.
    for features in ["", "flex"] {
        for package in &workspace.packages {
            if !features.is_empty() && !package.features.contains_key(features) {
                continue;
            }
            let mut check = vec![
                "-p".to_owned(),
                package.name.clone(),
                "--no-default-features".to_owned(),
            ];
            if !features.is_empty() {
                check.extend(["--features".to_owned(), features.to_owned()]);
            }
            add(&mut parts, &package.name, check, None);
        }
    }
    let train = |features: &str| {
        ["-p", "hybridnorm-train", "--features", features]
            .map(str::to_owned)
            .to_vec()
    };
    for backend in workspace.backends()? {
        let not_here = (backend == "metal" && os != "macos").then_some(
            "objc2, which Burn's metal feature needs, compiles for Apple's systems only",
        );
        add(&mut parts, backend, train(backend), not_here);
    }
    // With fusion, which `cuda` brings, remote devices are of another type.
    for features in ["remote", "cuda,remote"] {
        add(&mut parts, "remote", train(features), None);
    }
    let switches = format!("wgpu,{}", SWITCHES.join(","));
    add(&mut parts, SWITCHES[0], train(&switches), None);
    add(&mut parts, DASHBOARD, train(DASHBOARD), None);
    Ok(parts)
}

fn add(parts: &mut Vec<Part>, name: &str, check: Vec<String>, not_here: Option<&'static str>) {
    parts.push(Part {
        name: name.to_owned(),
        check,
        not_here,
    });
}

fn select(parts: Vec<Part>, names: &[String]) -> Result<Vec<Part>, String> {
    if let Some(unknown) = names
        .iter()
        .find(|name| parts.iter().all(|part| part.name != **name))
    {
        let mut allowed: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        allowed.sort_unstable();
        allowed.dedup();
        return Err(format!(
            "`{unknown}` is no part: allowed are {}",
            allowed.join(", ")
        ));
    }
    let chosen = |part: &Part| names.is_empty() || names.contains(&part.name);
    Ok(parts.into_iter().filter(chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    fn lines(parts: &[Part]) -> Vec<String> {
        parts.iter().map(|part| part.check.join(" ")).collect()
    }

    #[test]
    fn every_crate_is_checked_alone_and_every_backend_with_the_program() {
        let parts = parts(&workspace::tests::sample(), "linux").unwrap();
        assert_eq!(
            lines(&parts),
            [
                "-p hybridnorm-core --no-default-features",
                "-p hybridnorm-train --no-default-features",
                "-p hybridnorm-testing --no-default-features",
                "-p xtask --no-default-features",
                "-p hybridnorm-core --no-default-features --features flex",
                "-p hybridnorm-train --no-default-features --features flex",
                "-p hybridnorm-testing --no-default-features --features flex",
                "-p hybridnorm-train --features cuda",
                "-p hybridnorm-train --features flex",
                "-p hybridnorm-train --features ndarray",
                "-p hybridnorm-train --features wgpu",
                "-p hybridnorm-train --features remote",
                "-p hybridnorm-train --features cuda,remote",
                "-p hybridnorm-train --features wgpu,fusion,autotune",
                "-p hybridnorm-train --features tui",
            ]
        );
    }

    #[test]
    fn metal_is_reported_where_it_cannot_compile() {
        let mut workspace = workspace::tests::sample();
        for package in &mut workspace.packages[1..3] {
            package.features.insert("metal".to_owned(), Vec::new());
        }
        let here = |os| {
            let parts = parts(&workspace, os).unwrap();
            let metal = parts.iter().find(|part| part.name == "metal").unwrap();
            metal.not_here.is_none()
        };
        assert!(here("macos") && !here("linux"));
    }

    #[test]
    fn names_choose_parts_and_unknown_ones_are_refused() {
        let parts = || parts(&workspace::tests::sample(), "linux").unwrap();
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let chosen = select(parts(), &names(&["cuda", "hybridnorm-core"])).unwrap();
        assert_eq!(chosen.len(), 3);
        let message = select(parts(), &names(&["quda"])).unwrap_err();
        assert!(
            message.contains("quda") && message.contains("cuda, flex"),
            "{message}"
        );
    }
}
