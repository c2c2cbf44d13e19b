//! What is on this machine.

use burn::tensor::{DType, Device};
use serde::Serialize;

use crate::error::DeviceError;
use crate::spec::DeviceSpec;
use crate::table::{DEVICES, DeviceRow};

/// A row of the table, and what this machine has of it.
#[derive(Debug, Clone, Serialize)]
pub struct Inventory {
    /// The device's name, which is its Cargo feature too.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// Whether this build has it.
    pub compiled_in: bool,
    /// What was found, in the order of their numbers.
    pub found: Vec<Adapter>,
    /// What to do where it is not compiled in, or nothing was found.
    pub hint: Option<String>,
}

/// A device that is there.
#[derive(Debug, Clone, Serialize)]
pub struct Adapter {
    /// As `--device` takes it.
    pub device: String,
    /// The hardware, as it names itself.
    pub adapter: String,
    /// Whether it is a driver that computes on the CPU.
    pub software: bool,
    /// Memory in bytes: the machine's for a CPU device, the card's for CUDA, and `None` where the driver does not tell.
    pub memory_bytes: Option<u64>,
    /// Float types that tensors may have there.
    pub float_types: Vec<&'static str>,
}

/// Every row of [`DEVICES`] with what this machine has of it. Opens each device that is found.
pub fn inventory() -> Vec<Inventory> {
    DEVICES.iter().map(look_for).collect()
}

fn look_for(row: &'static DeviceRow) -> Inventory {
    let mut found = Vec::new();
    let mut hint = None;
    // The first one that does not open ends the list; that it was the last one is no news.
    for index in 0.. {
        let spec = DeviceSpec::new(row, index);
        match spec.open() {
            Ok(device) => found.push(describe(&spec, index, &device)),
            Err(DeviceError::NoSuchIndex { .. }) => break,
            Err(error) => {
                hint = Some(error.to_string());
                break;
            }
        }
        if !row.numbered {
            break;
        }
    }
    Inventory {
        name: row.name,
        summary: row.summary,
        compiled_in: row.is_compiled_in(),
        found,
        hint,
    }
}

fn describe(spec: &DeviceSpec, index: usize, device: &Device) -> Adapter {
    let float_types = [
        (DType::F64, "f64"),
        (DType::F32, "f32"),
        (DType::F16, "f16"),
        (DType::BF16, "bf16"),
    ];
    Adapter {
        device: spec.to_string(),
        adapter: adapter_name(device),
        software: spec.row().compiles_kernels && is_software(device),
        memory_bytes: match spec.row().name {
            "cuda" => card_memory(index),
            _ => spec.row().in_host_memory.then(machine_memory),
        },
        float_types: float_types
            .into_iter()
            .filter(|(dtype, _)| device.supports_dtype(*dtype))
            .map(|(_, name)| name)
            .collect(),
    }
}

/// The hardware behind a device, as it names itself.
pub fn adapter_name(device: &Device) -> String {
    identity(device)
        .map(|(name, _)| name)
        .unwrap_or_else(cpu_name)
}

/// Opens the device, if opening is something it does.
pub(crate) fn touch(device: &Device) {
    let _ = identity(device);
}

/// Whether no card stands behind the device.
pub(crate) fn is_software(device: &Device) -> bool {
    identity(device).is_none_or(|(_, card)| !card)
}

/// The name of the hardware, and whether it is a card; `None` from a backend that does not tell.
fn identity(device: &Device) -> Option<(String, bool)> {
    #[cfg(any(
        feature = "cpu",
        feature = "wgpu",
        feature = "vulkan",
        feature = "metal",
        feature = "webgpu",
        feature = "cuda",
        feature = "rocm"
    ))]
    if let Some(identity) = device.identity() {
        return Some((identity.name, identity.physical.is_some()));
    }
    let _ = device;
    None
}

#[cfg(feature = "cuda")]
fn card_memory(index: usize) -> Option<u64> {
    let context = cudarc::driver::CudaContext::new(index).ok()?;
    context.total_mem().ok().map(|bytes| bytes as u64)
}

#[cfg(not(feature = "cuda"))]
fn card_memory(_index: usize) -> Option<u64> {
    None
}

/// Bytes of memory that a device has for a process which already holds `held` of it: on the CPU what the system says is available, in a
/// container at most what it may use; on a CUDA card all of it; `None` where nobody tells.
pub fn memory_for(spec: &DeviceSpec, held: u64) -> Option<u64> {
    if spec.row().in_host_memory {
        let mut system = sysinfo::System::new();
        system.refresh_memory();
        let available = Some(system.available_memory()).filter(|bytes| *bytes > 0)?;
        return Some((available + held).min(machine_memory()));
    }
    match spec.row().name {
        "cuda" => spec.index().and_then(card_memory),
        _ => None,
    }
}

fn machine_memory() -> u64 {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    // In a container, what it may use.
    system
        .cgroup_limits()
        .map_or(system.total_memory(), |limits| limits.total_memory)
}

fn cpu_name() -> String {
    let mut system = sysinfo::System::new();
    system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
    let brand = system.cpus().first().map_or("", |cpu| cpu.brand().trim());
    let brand = if brand.is_empty() { "CPU" } else { brand };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{brand}, {threads} threads")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_found_or_says_what_to_do() {
        for entry in inventory() {
            assert_eq!(entry.found.is_empty(), entry.hint.is_some(), "{entry:?}");
            if !entry.compiled_in {
                assert!(entry.hint.unwrap().contains("--features"));
            }
            for adapter in entry.found {
                assert!(adapter.float_types.contains(&"f32"), "{adapter:?}");
                assert!(!adapter.adapter.is_empty());
                assert!(adapter.memory_bytes.is_none_or(|bytes| bytes > 1 << 20));
            }
        }
    }
}
