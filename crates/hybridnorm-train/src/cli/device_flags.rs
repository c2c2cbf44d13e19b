//! The flags that say where a run computes.

use clap::Args;
use hybridnorm_core::ConfigError;

use super::flags::{DEVICE, one_of};
use crate::device::{DEVICES, DeviceSpec};
use crate::error::Error;

/// Where a run computes: on one device, or data-parallel on several.
#[derive(Debug, Clone, Default, Args)]
pub struct DeviceFlags {
    /// Where to compute
    #[arg(long, help_heading = DEVICE, value_name = "NAME", help = device_help())]
    device: Option<String>,
    /// Several devices, data-parallel: each takes an equal part of a step's micro-batches, the first one holds the weights and adds up
    /// the gradients. A CPU may be named more than once
    #[arg(
        long,
        help_heading = DEVICE,
        value_name = "NAME,NAME",
        value_delimiter = ',',
        conflicts_with = "device"
    )]
    devices: Vec<String>,
}

impl DeviceFlags {
    /// What `--device DEVICE` would be.
    pub(super) fn one(device: &DeviceSpec) -> Self {
        Self {
            device: Some(device.to_string()),
            ..Self::default()
        }
    }

    /// What `--device` says.
    pub(super) fn device(&self) -> Option<&str> {
        self.device.as_deref()
    }

    /// Whether `--devices` says anything.
    pub(super) fn several(&self) -> bool {
        !self.devices.is_empty()
    }

    /// How many devices are asked for.
    pub(super) fn count(&self) -> usize {
        self.devices.len().max(1)
    }

    /// The device that holds the weights, and the others.
    pub(super) fn resolve(&self) -> Result<(DeviceSpec, Vec<DeviceSpec>), Error> {
        let parse = |name: &String| name.parse::<DeviceSpec>();
        let mut specs = match (&self.device, &self.devices[..]) {
            (None, []) => vec![DeviceSpec::best()?],
            (Some(one), _) => vec![parse(one)?],
            (None, several) => several.iter().map(parse).collect::<Result<_, _>>()?,
        };
        for (index, spec) in specs.iter().enumerate() {
            let again = specs
                .get(..index)
                .is_some_and(|before| before.contains(spec));
            if again && !spec.row().in_host_memory {
                let allowed =
                    format!("{spec} once: a second copy of the model there gains nothing");
                return Err(ConfigError::new("devices", self.devices.join(","), allowed).into());
            }
        }
        let first = specs.remove(0);
        Ok((first, specs))
    }
}

fn device_help() -> String {
    let names: Vec<String> = DEVICES
        .iter()
        .map(|row| format!("{}{}", row.name, row.place()))
        .collect();
    let compiled_in = crate::device::compiled_in();
    one_of("Where to compute", names.iter().map(String::as_str))
        + &format!(
            " [this build: {compiled_in}; default: the first of these that is on this machine]"
        )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: DeviceFlags,
    }

    fn parse(line: &str) -> Result<(String, Vec<String>), String> {
        let words = std::iter::once("program").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let devices = line.flags.resolve().map_err(|error| error.to_string())?;
        let others = devices.1.iter().map(DeviceSpec::to_string).collect();
        Ok((devices.0.to_string(), others))
    }

    #[test]
    fn the_first_of_several_devices_holds_the_weights() {
        let list = "--devices remote:a:1,cuda:1,flex,flex";
        let (first, others) = parse(list).unwrap();
        assert_eq!(first, "remote:a:1");
        assert_eq!(others, ["cuda:1", "flex", "flex"]);
        assert_eq!(parse("--device cuda:1").unwrap().0, "cuda:1");
    }

    #[test]
    fn what_gains_nothing_or_does_not_exist_is_refused() {
        for (line, says) in [
            ("--devices cuda,flex,cuda:0", "cuda once"),
            ("--devices remote:a:1,remote:a:1/0", "remote:a:1 once"),
            ("--devices flex,felx", "did you mean \"flex\""),
            ("--devices flex,flex --device flex", "cannot be used with"),
            ("--devices flex,", "one of"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
}
