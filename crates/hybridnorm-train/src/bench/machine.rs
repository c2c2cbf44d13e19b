//! What a measurement says of the machine: its threads, and the memory that was taken.

use crate::device::DeviceSpec;
use crate::engine::peak_memory;

/// Most memory a measurement took, and what was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peak {
    /// In bytes; `None` where it is not known.
    pub bytes: Option<u64>,
    /// What the figure is, or why there is none.
    pub meaning: &'static str,
}

impl Peak {
    /// Of a measurement on `spec`, during which Burn's allocator reserved `reserved` bytes at most.
    pub fn of(spec: &DeviceSpec, reserved: Option<u64>) -> Self {
        let (bytes, meaning) = if spec.row().in_host_memory {
            match peak_memory() {
                Some(bytes) => (
                    Some(bytes),
                    "largest resident set of the whole process, without its program file",
                ),
                None => (
                    None,
                    "not known: only Linux tells a process its largest resident set",
                ),
            }
        } else {
            match reserved {
                Some(bytes) => (
                    Some(bytes),
                    "largest that Burn's allocator had reserved on the device after a step",
                ),
                None => (
                    None,
                    "not known: Burn's backend does not report the device's memory",
                ),
            }
        };
        Self { bytes, meaning }
    }
}

/// Threads of the CPU backends: Rayon takes as many as `RAYON_NUM_THREADS` says, else one per core that the system
/// grants (`rayon::ThreadPoolBuilder::num_threads`).
pub(super) fn threads() -> Option<usize> {
    let asked = std::env::var("RAYON_NUM_THREADS")
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|threads| *threads > 0);
    let granted = || std::thread::available_parallelism().ok().map(usize::from);
    asked.or_else(granted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_known_or_says_why_not() {
        for name in ["flex", "wgpu"] {
            let spec: DeviceSpec = name.parse().unwrap();
            for reserved in [None, Some(1 << 20)] {
                let peak = Peak::of(&spec, reserved);
                assert_eq!(peak.bytes.is_none(), peak.meaning.starts_with("not known"));
            }
        }
        let gpu: DeviceSpec = "cuda".parse().unwrap();
        assert_eq!(Peak::of(&gpu, Some(7)).bytes, Some(7));
    }
}
