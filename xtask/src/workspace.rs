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

    /// Every backend: the features of `hybridnorm-train` but its default and the switches.
    pub fn backends(&self) -> Result<Vec<&str>, String> {
        let train = self
            .packages
            .iter()
            .find(|package| package.name == "hybridnorm-train")
            .ok_or("the workspace has no package `hybridnorm-train`")?;
        let features = train.features.keys().map(String::as_str);
        Ok(features
            .filter(|feature| *feature != "default" && !SWITCHES.contains(feature))
            .collect())
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
