//! Devices as a chore sees them: the Cargo feature that compiles each in.
//!
//! There is no list of devices here: the features of `hybridnorm-train` are the list, and cargo
//! refuses any other name.

use std::fmt;
use std::str::FromStr;

use clap::Args;

/// A device as `hybridnorm-train --device` names it: a Cargo feature, and an index where there are
/// several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    backend: String,
    index: Option<usize>,
}

impl Device {
    /// `cuda:1` → `hybridnorm-train/cuda`
    pub fn feature(&self) -> String {
        format!("hybridnorm-train/{}", self.backend)
    }
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
        if backend.is_empty() || !backend.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Err(format!(
                "`{backend}` is no backend: allowed are the backend features of hybridnorm-train"
            ));
        }
        Ok(Self {
            backend: backend.to_owned(),
            index,
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.backend)?;
        self.index.map_or(Ok(()), |index| write!(f, ":{index}"))
    }
}

/// The devices to compile in. `flex`, the program's default feature, always is.
#[derive(Args, Clone)]
pub struct Devices {
    /// Devices to compile in besides flex, by their Cargo features
    #[arg(
        long = "device",
        value_name = "DEVICE",
        value_delimiter = ',',
        default_value = "flex"
    )]
    devices: Vec<Device>,
}

impl Devices {
    /// The value of cargo's `--features` for the whole workspace: the program and the test fixture.
    pub fn features(&self) -> String {
        self.devices
            .iter()
            .map(|device| format!("{},hybridnorm-testing/{}", device.feature(), device.backend))
            .collect::<Vec<_>>()
            .join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_selects_a_device_not_a_feature() {
        let device: Device = "cuda:1".parse().unwrap();
        assert_eq!(device.feature(), "hybridnorm-train/cuda");
        assert_eq!(device.to_string(), "cuda:1");
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
}
