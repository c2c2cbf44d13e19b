//! `devices`: what this build can compute on, and what this machine has of it.

use std::io::Write;

use clap::Args;
use hybridnorm_device::{Adapter, DeviceSpec, Inventory, fusion, inventory, markdown};

use crate::error::Error;

/// Flags of `devices`.
#[derive(Debug, Args)]
pub struct DevicesFlags {
    /// Print one JSON array, an object for each device
    #[arg(long, conflicts_with = "table")]
    pub json: bool,
    /// Print docs/backends.md: the table of devices, where each was tested and its limits
    #[arg(long)]
    pub table: bool,
}

pub(super) fn run(flags: &DevicesFlags, out: &mut impl Write) -> Result<(), Error> {
    let text = match flags {
        DevicesFlags { table: true, .. } => backends_page(),
        DevicesFlags { json: true, .. } => {
            let text = serde_json::to_string_pretty(&inventory());
            text.map_err(|error| Error::Output(error.into()))? + "\n"
        }
        _ => listing(&inventory()),
    };
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

fn listing(devices: &[Inventory]) -> String {
    let mut text = String::new();
    for device in devices {
        text += &format!("{:<9}{}\n", device.name, device.summary);
        for adapter in &device.found {
            text += &format!("         --device {}: {}\n", adapter.device, line(adapter));
        }
        if let Some(hint) = &device.hint {
            text += &format!("         {hint}\n");
        }
    }
    text += &match DeviceSpec::best() {
        Ok(best) => format!("\ndefault  {best}\n"),
        Err(error) => format!("\ndefault  {error}\n"),
    };
    let switch = |name: &str, on: bool| match on {
        true => "compiled in".to_string(),
        false => format!("not compiled in (--features {name})"),
    };
    text += &format!(
        "kernels  fusion {}{}; autotune {}; they concern devices that compile kernels\n",
        switch("fusion", fusion::is_compiled_in()),
        match fusion::is_compiled_in() && !fusion::is_on() {
            true => ", switched off in the environment",
            false => "",
        },
        switch("autotune", fusion::is_autotuned())
    );
    text
}

fn line(adapter: &Adapter) -> String {
    let software = if adapter.software { ", software" } else { "" };
    let memory = adapter
        .memory_bytes
        .map_or("memory not told by its driver".to_string(), |bytes| {
            format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
        });
    let types = adapter.float_types.join(" ");
    format!("{}{software}, {memory}, {types}", adapter.adapter)
}

/// `docs/backends.md`.
pub fn backends_page() -> String {
    format!(
        "<!-- Written by `cargo xtask docs` from the table in crates/hybridnorm-device/src/table.rs. -->\n\
         # Backends\n\n\
         One model definition runs on every device below; the backend is chosen at run time among the Cargo features that are compiled in.\n\
         `hybridnorm-train devices` lists what a build has and what the machine offers, `hybridnorm-train verify --device NAME` certifies one,\n\
         and `cargo xtask test --device NAME` runs the suite there.\n\n\
         {}\n\
         `fusion` and `autotune` are Cargo features of their own: kernels of several operations, and kernel variants timed on the device. `cuda`,\n\
         `rocm` and `metal` bring them along in `hybridnorm-train`; for `vulkan` and `wgpu` on a real GPU add them: `--features wgpu,fusion,autotune`.\n\
         `{}=0` in the environment switches fusion off for one process, and `verify` certifies both ways.\n\n\
         Among several adapters `wgpu`, `vulkan` and `metal` take the one the driver prefers; `CUBECL_WGPU_DEFAULT_DEVICE`, e.g.\n\
         `IntegratedGpu(0)`, picks another. Mesa's drivers look for a display, and write `XDG_RUNTIME_DIR is invalid or not set` to standard\n\
         error where nobody is logged in, in a container say: harmless, and silent with `XDG_RUNTIME_DIR=/tmp` in the environment.\n",
        markdown(),
        fusion::SWITCH,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_table() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/backends.md");
        let page = std::fs::read_to_string(page).unwrap();
        assert_eq!(page, backends_page(), "run `cargo xtask docs`");
    }

    #[test]
    fn the_listing_names_every_device_and_what_to_do() {
        let text = listing(&inventory());
        for row in hybridnorm_device::DEVICES {
            let line = text.lines().find(|line| line.starts_with(row.name));
            assert!(
                line.is_some_and(|line| line.ends_with(row.summary)),
                "{text}"
            );
            if !row.is_compiled_in() {
                assert!(text.contains(&format!("rebuild with --features {}", row.name)));
            }
        }
        assert!(text.contains("\ndefault  "));
    }
}
