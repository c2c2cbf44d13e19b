//! What the built program finds on this machine: `hybridnorm-train devices --json`.

use std::path::Path;

use serde::Deserialize;
use xshell::{Shell, cmd};

use crate::device::Backend;

/// One row of the program's table of devices.
#[derive(Debug, Deserialize)]
pub struct Entry {
    pub name: String,
    pub compiled_in: bool,
    #[serde(default)]
    pub found: Vec<Adapter>,
    hint: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Adapter {
    pub device: String,
    pub adapter: Option<String>,
}

impl Entry {
    /// Its adapters in words, or why there are none.
    pub fn adapters(&self) -> Result<String, String> {
        let hint = self.hint.as_deref().unwrap_or("the program gives no hint");
        if !self.compiled_in {
            return Err(format!("not compiled in; {hint}"));
        }
        if self.found.is_empty() {
            return Err(format!("no adapter; {hint}"));
        }
        let adapters = self.found.iter().map(|found| match &found.adapter {
            Some(adapter) => format!("{} ({adapter})", found.device),
            None => found.device.clone(),
        });
        Ok(adapters.collect::<Vec<_>>().join(", "))
    }
}

/// Asks the program. Its messages go to the terminal.
pub fn ask(shell: &Shell, program: &Path) -> Result<Vec<Entry>, String> {
    let json = cmd!(shell, "{program} devices --json")
        .read()
        .map_err(|error| error.to_string())?;
    parse(&json)
}

fn parse(json: &str) -> Result<Vec<Entry>, String> {
    serde_json::from_str(json).map_err(|error| format!("`devices --json`: {error}"))
}

/// The devices of a feature set as they stand on this machine.
#[derive(Default)]
pub struct Standing {
    /// What can run, with its adapters.
    pub present: Vec<(Backend, String)>,
    /// What cannot, with the reason. A device that is compiled in without being asked for has test cases
    /// too, so it is here when it has no adapter.
    pub absent: Vec<(String, String)>,
}

/// Tells the devices that can run from those that cannot.
pub fn sort(entries: &[Entry], asked: &[Backend]) -> Standing {
    let (mut present, mut absent) = (Vec::new(), Vec::new());
    for backend in asked {
        let entry = entries.iter().find(|entry| entry.name == backend.name());
        let adapters = entry.map_or(
            Err("`hybridnorm-train devices` does not know it".to_owned()),
            Entry::adapters,
        );
        match adapters {
            Ok(adapters) => present.push((backend.clone(), adapters)),
            Err(reason) => absent.push((backend.to_string(), reason)),
        }
    }
    for entry in entries.iter().filter(|entry| entry.compiled_in) {
        let asked = asked.iter().any(|backend| backend.name() == entry.name);
        if let (false, Err(reason)) = (asked, entry.adapters()) {
            absent.push((entry.name.clone(), reason));
        }
    }
    Standing { present, absent }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"[
        {"name":"flex","feature":"flex","compiled_in":true,"hint":null,
         "found":[{"device":"flex","adapter":"CPU","memory_bytes":null,"float_types":["f32"]}]},
        {"name":"wgpu","feature":"wgpu","compiled_in":true,"found":[],"hint":"install a Vulkan driver"},
        {"name":"webgpu","feature":"webgpu","compiled_in":true,"found":[],"hint":"install a Vulkan driver"},
        {"name":"cuda","feature":"cuda","compiled_in":false,"found":[],"hint":"add --features cuda"}]"#;

    fn backends(names: &[&str]) -> Vec<Backend> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_device_without_adapter_is_told_from_one_that_was_found() {
        let entries = parse(JSON).unwrap();
        let Standing { present, absent } =
            sort(&entries, &backends(&["flex", "wgpu", "cuda", "rocm"]));
        assert_eq!(present.len(), 1);
        assert_eq!(present[0].1, "flex (CPU)");
        let reason = |name: &str| {
            let found = absent.iter().find(|(device, _)| device == name);
            found.map(|(_, reason)| reason.as_str())
        };
        assert_eq!(reason("wgpu"), Some("no adapter; install a Vulkan driver"));
        assert_eq!(reason("cuda"), Some("not compiled in; add --features cuda"));
        assert!(reason("rocm").unwrap().contains("does not know it"));
        // Nobody asked for it, but its cases are in the test programs.
        assert!(reason("webgpu").is_some());
    }

    #[test]
    fn what_is_not_asked_for_nor_compiled_in_is_not_mentioned() {
        let Standing { absent, .. } = sort(&parse(JSON).unwrap(), &backends(&["flex"]));
        assert!(absent.iter().all(|(device, _)| device != "cuda"));
    }

    #[test]
    fn other_output_is_refused() {
        for json in ["", "{}", "[1]", r#"[{"name": "flex"}]"#] {
            assert!(parse(json).is_err(), "{json:?} was taken for a device list");
        }
    }
}
