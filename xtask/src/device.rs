//! Devices as a chore sees them: the Cargo feature that compiles each in.
//!
//! There is no list of devices here: the features of `hybridnorm-train` are the list.

use std::fmt;
use std::str::FromStr;

use clap::Args;

use crate::workspace::Workspace;

/// A backend by its Cargo feature, which is also the name of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend(String);

impl Backend {
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether it compiles kernels as it runs, so that fusion and autotune mean something to it.
    /// Burn's two CPU backends are ready-made code, and what a remote device compiles is its server's affair.
    pub fn compiles_kernels(&self) -> bool {
        !["flex", "ndarray", "remote"].contains(&self.name())
    }

    /// Refuses what `hybridnorm-train` has no feature for, before cargo builds anything.
    pub fn known(&self, workspace: &Workspace) -> Result<(), String> {
        let allowed = workspace.backends()?;
        match allowed.contains(&self.name()) {
            true => Ok(()),
            false => Err(format!(
                "`{self}` is no backend: allowed are {}",
                allowed.join(", ")
            )),
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Err(format!(
                "`{text}` is no backend: allowed are the backend features of hybridnorm-train"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A device as `hybridnorm-train --device` names it: a backend, and an index where there are several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub backend: Backend,
    index: Option<usize>,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (backend, index) = match text.split_once(':') {
            Some((backend, index)) => {
                let index = index.parse().map_err(|_| {
                    format!("`{index}` is no device index: allowed are 0, 1, 2, ...")
                })?;
                (backend, Some(index))
            }
            None => (text, None),
        };
        Ok(Self {
            backend: backend.parse()?,
            index,
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.backend.fmt(f)?;
        self.index.map_or(Ok(()), |index| write!(f, ":{index}"))
    }
}

/// The devices a chore compiles in.
#[derive(Args, Clone)]
pub struct Devices {
    /// Devices to compile in, by their Cargo features; flex, the program's default, always is
    #[arg(
        long = "device",
        value_name = "DEVICE",
        value_delimiter = ',',
        default_value = "flex,ndarray,wgpu"
    )]
    backends: Vec<Backend>,
}

impl Devices {
    /// These and `more`, each once, in the order in which they were named.
    pub fn with(&self, more: &[Backend]) -> Vec<Backend> {
        let mut all: Vec<Backend> = Vec::new();
        for backend in self.backends.iter().chain(more) {
            if !all.contains(backend) {
                all.push(backend.clone());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn an_index_selects_a_device_not_a_feature() {
        let device: Device = "cuda:1".parse().unwrap();
        assert_eq!(device.backend.name(), "cuda");
        assert_eq!(device.to_string(), "cuda:1");
        assert!("cuda:1".parse::<Backend>().is_err());
    }

    /// The table stands in a crate that this light program does not build.
    #[test]
    fn the_backends_that_compile_kernels_are_those_of_the_table() {
        let table = include_str!("../../crates/hybridnorm-device/src/table.rs");
        let value = |line: &str, field: &str| {
            Some(
                line.trim()
                    .strip_prefix(field)?
                    .trim_matches(['"', ',', ' '])
                    .to_owned(),
            )
        };
        let names = table.lines().filter_map(|line| value(line, "name: "));
        let flags = table
            .lines()
            .filter_map(|line| value(line, "compiles_kernels: "));
        let rows: Vec<_> = names
            .zip(flags)
            .filter(|(_, flag)| flag != "bool")
            .collect();
        assert!(rows.len() > 5, "{rows:?}");
        for (name, flag) in rows {
            let backend: Backend = name.parse().unwrap();
            assert_eq!(backend.compiles_kernels().to_string(), flag, "{name}");
        }
    }

    #[test]
    fn what_cannot_name_a_device_is_refused() {
        for text in [
            "",
            ":0",
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "no/feature",
            "--help",
            "a,b",
        ] {
            assert!(
                text.parse::<Device>().is_err(),
                "{text:?} was taken for a device"
            );
        }
    }

    #[test]
    fn an_unknown_backend_is_refused_with_those_that_are_known() {
        let workspace = workspace::tests::sample();
        let known = |name: &str| name.parse::<Backend>().unwrap().known(&workspace);
        assert!(known("cuda").is_ok());
        for name in ["quda", "fusion", "default"] {
            let message = known(name).unwrap_err();
            assert!(
                message.contains(name) && message.contains("cuda, flex, ndarray, wgpu"),
                "{message}"
            );
        }
    }
}
