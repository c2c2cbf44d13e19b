//! Where chores run, and what the workspace says about itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use xshell::{Shell, cmd};

/// A shell in the workspace root, from wherever `cargo xtask` was called.
pub fn shell() -> Result<Shell, String> {
    // Set by `cargo run`. Not `env!`: the program may stand in a target directory that two checkouts
    // share.
    let manifest_dir = std::env::var_os("CARGO_MANIFEST_DIR").ok_or("call me as `cargo xtask`")?;
    let manifest_dir = PathBuf::from(manifest_dir);
    let root = manifest_dir
        .parent()
        .filter(|root| root.join("Cargo.lock").is_file());
    let root: &Path =
        root.ok_or_else(|| format!("no workspace root above {}", manifest_dir.display()))?;

    let shell = Shell::new().map_err(|error| error.to_string())?;
    shell.change_dir(root);
    Ok(shell)
}

/// The part of `cargo metadata` that chores read instead of keeping lists of their own.
#[derive(Debug, Deserialize)]
pub struct Workspace {
    pub packages: Vec<Package>,
    pub target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
pub struct Package {
    pub name: String,
    pub features: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    #[serde(rename = "required-features", default)]
    required_features: Vec<String>,
}

/// Compile-time switches of the kernel-compiling backends: features that are no backend.
pub const SWITCHES: [&str; 2] = ["fusion", "autotune"];

impl Workspace {
    pub fn read(shell: &Shell) -> Result<Self, String> {
        let json = cmd!(shell, "cargo metadata --no-deps --format-version 1")
            .quiet()
            .read()
            .map_err(|error| error.to_string())?;
        Self::parse(&json)
    }

    fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| format!("`cargo metadata`: {error}"))
    }

    /// Every backend: what `hybridnorm-train` and the test fixture both have a feature for, but the default
    /// and the switches. The program has features of its own besides.
    pub fn backends(&self) -> Result<Vec<&str>, String> {
        let testing = self.package("hybridnorm-testing")?;
        let features = self.package("hybridnorm-train")?.features.keys();
        Ok(features
            .map(String::as_str)
            .filter(|feature| testing.features.contains_key(*feature))
            .filter(|feature| *feature != "default" && !SWITCHES.contains(feature))
            .collect())
    }

    /// The features without which cargo refuses to build a target.
    pub fn required_features(&self, package: &str, target: &str) -> Result<&[String], String> {
        let targets = &self.package(package)?.targets;
        let target = targets
            .iter()
            .find(|other| other.name == target)
            .ok_or_else(|| format!("{package} has no target `{target}`"))?;
        Ok(&target.required_features)
    }

    fn package(&self, name: &str) -> Result<&Package, String> {
        self.packages
            .iter()
            .find(|package| package.name == name)
            .ok_or_else(|| format!("the workspace has no package `{name}`"))
    }

    /// Where a release build puts a program.
    pub fn program(&self, name: &str) -> PathBuf {
        let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
        self.target_directory.join("release").join(file)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn sample() -> Workspace {
        Workspace::parse(
            r#"{"target_directory": "/t", "packages": [
                {"name": "hybridnorm-core", "features": {"default": [], "flex": [], "wgpu": []}},
                {"name": "hybridnorm-train", "features": {
                    "autotune": [], "cuda": [], "default": ["flex"], "flex": [], "fusion": [],
                    "ndarray": [], "pack": [], "wgpu": []},
                 "targets": [{"name": "pack", "required-features": ["pack"]}, {"name": "cli"}]},
                {"name": "hybridnorm-testing", "features": {
                    "autotune": [], "cuda": [], "default": ["flex"], "flex": [], "fusion": [],
                    "ndarray": [], "wgpu": []}},
                {"name": "xtask", "features": {}}]}"#,
        )
        .unwrap()
    }

    #[test]
    fn backends_are_the_features_that_are_no_switch() {
        let workspace = sample();
        assert_eq!(
            workspace.backends().unwrap(),
            ["cuda", "flex", "ndarray", "wgpu"]
        );
    }

    #[test]
    fn a_target_says_which_features_it_requires() {
        let workspace = sample();
        let required = |target| workspace.required_features("hybridnorm-train", target);
        assert_eq!(required("pack").unwrap(), ["pack"]);
        assert!(required("cli").unwrap().is_empty());
        assert!(required("other").is_err());
    }

    #[test]
    fn this_workspace_says_what_chores_ask_of_it() {
        let shell = Shell::new().unwrap();
        let workspace = Workspace::read(&shell).unwrap();
        let backends = workspace.backends().unwrap();
        for backend in ["flex", "ndarray", "wgpu", "cuda"] {
            assert!(
                backends.contains(&backend),
                "{backend} is not in {backends:?}"
            );
        }
    }
}
