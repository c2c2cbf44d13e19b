//! The one table of devices.

use std::fmt::Write;

use burn::tensor::Device;

/// A row of [`DEVICES`].
#[derive(Debug)]
pub struct DeviceRow {
    /// The name, as it is typed, and Burn's name of the Cargo feature that compiles it in.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// Whether there can be several, told apart by a number.
    pub numbered: bool,
    /// Whether it is another process's, told apart by an address.
    pub addressed: bool,
    /// Whether it compiles kernels at run time, which the Cargo features `fusion` and `autotune` act on.
    pub compiles_kernels: bool,
    /// Whether tensors lie in the process's own memory.
    pub in_host_memory: bool,
    /// What the machine must have, and how to get it.
    pub needs: &'static str,
    /// Where this project's tests have run on it.
    pub tested: &'static str,
    /// Float types in which models run there; what was not measured says so.
    pub float_types: &'static str,
    /// Known limits.
    pub limits: &'static str,
    /// `None` where the feature is not compiled in, or there is nothing to ask without an address.
    pub(crate) backend: Option<Backend>,
}

/// What a remote device needs.
pub(crate) const SERVER: &str = "a server that was started with `hybridnorm-train serve-device` in the same version, and the token that it asks for";

/// How a compiled-in backend is asked for its devices.
#[derive(Debug)]
pub(crate) struct Backend {
    /// The device with an index.
    pub open: fn(usize) -> Device,
    /// How many devices the machine has, without opening one.
    pub count: fn() -> usize,
}

impl DeviceRow {
    /// What may, or must, follow the name.
    pub fn place(&self) -> &'static str {
        match (self.numbered, self.addressed) {
            (_, true) => ":HOST:PORT",
            (true, false) => "[:N]",
            (false, false) => "",
        }
    }

    /// Whether this build has the device's feature.
    pub fn is_compiled_in(&self) -> bool {
        self.backend.is_some() || (self.addressed && cfg!(feature = "remote"))
    }
}

/// The backend of a row, if its feature is compiled in.
macro_rules! compiled_in {
    ($feature:literal, $kind:ident, $open:expr) => {{
        #[cfg(feature = $feature)]
        let backend = Some(Backend {
            open: $open,
            // Burn looks for the driver before it touches it here, and only here.
            count: || {
                Device::enumerate(burn::tensor::DeviceType::$kind)
                    .into_vec()
                    .len()
            },
        });
        #[cfg(not(feature = $feature))]
        let backend: Option<Backend> = None;
        backend
    }};
}

/// Every device, the best first: the first one compiled in that is on the machine is the default.
pub static DEVICES: &[DeviceRow] = &[
    DeviceRow {
        name: "cuda",
        summary: "an NVIDIA GPU",
        numbered: true,
        addressed: false,
        compiles_kernels: true,
        in_host_memory: false,
        needs: "an NVIDIA GPU and its driver (libcuda.so.1, nvcuda.dll); no CUDA toolkit",
        tested: "type-checked; not yet run on a GPU",
        float_types: "f32, f16, bf16, f64 by Burn's source; not yet measured",
        limits: "building downloads an LLVM bundle (tracel-llvm)",
        backend: compiled_in!("cuda", Cuda, |index| Device::cuda(index)),
    },
    DeviceRow {
        name: "rocm",
        summary: "an AMD GPU",
        numbered: true,
        addressed: false,
        compiles_kernels: true,
        in_host_memory: false,
        needs: "an AMD GPU with ROCm's HIP runtime (libamdhip64)",
        tested: "type-checked; not run",
        float_types: "not measured",
        limits: "building downloads an LLVM bundle (tracel-llvm)",
        backend: compiled_in!("rocm", Rocm, |index| Device::rocm(index)),
    },
    DeviceRow {
        name: "metal",
        summary: "an Apple GPU, through Metal",
        numbered: false,
        addressed: false,
        compiles_kernels: true,
        in_host_memory: false,
        needs: "macOS with Metal",
        tested: "workflow for macOS prepared; not run",
        float_types: "f32, f16 by Burn's source; not measured",
        limits: "macOS only",
        backend: compiled_in!("metal", Metal, |_| Device::metal(
            burn::tensor::DeviceKind::DefaultDevice
        )),
    },
    DeviceRow {
        name: "vulkan",
        summary: "any GPU, through Vulkan and SPIR-V",
        numbered: false,
        addressed: false,
        compiles_kernels: true,
        in_host_memory: false,
        needs: "a GPU with a Vulkan driver",
        tested: "type-checked; not run",
        float_types: "not measured",
        limits: "crashes inside the software driver of Debian 12 (Mesa 22.3): use wgpu there",
        backend: compiled_in!("vulkan", Vulkan, |_| Device::vulkan(
            burn::tensor::DeviceKind::DefaultDevice
        )),
    },
    DeviceRow {
        name: "wgpu",
        summary: "any GPU, through Vulkan, Metal or DirectX 12 and WGSL",
        numbered: false,
        addressed: false,
        compiles_kernels: true,
        in_host_memory: false,
        needs: "a GPU with a Vulkan, Metal or DirectX 12 driver; for tests a software adapter will do (Debian: mesa-vulkan-drivers libvulkan1)",
        tested: "the whole suite on Mesa's software adapter (llvmpipe), on Linux; no GPU yet",
        float_types: "f32; f16 and f64 where the adapter has them, as llvmpipe does",
        limits: "no bf16 in WGSL; on a software adapter fusion and autotune make the first step minutes long",
        backend: compiled_in!("wgpu", Wgpu, |_| Device::wgpu(
            burn::tensor::DeviceKind::DefaultDevice
        )),
    },
    DeviceRow {
        name: "webgpu",
        summary: "the browser's GPU",
        numbered: false,
        addressed: false,
        compiles_kernels: true,
        in_host_memory: false,
        needs: "a browser with WebGPU: on a desktop choose wgpu",
        tested: "type-checked; not run",
        float_types: "f32",
        limits: "no adapter outside browsers, and this program does not run in one",
        backend: compiled_in!("webgpu", WebGpu, |_| Device::webgpu(
            burn::tensor::DeviceKind::DefaultDevice
        )),
    },
    DeviceRow {
        name: "flex",
        summary: "the CPU",
        numbered: false,
        addressed: false,
        compiles_kernels: false,
        in_host_memory: true,
        needs: "nothing",
        tested: "the whole suite, on Linux (x86-64)",
        float_types: "f32, f64; bf16 and f16 through f32",
        limits: "element-wise operations use one thread; bf16 and f16 are slower than f32",
        backend: compiled_in!("flex", Flex, |_| Device::flex()),
    },
    DeviceRow {
        name: "cpu",
        summary: "the CPU, through CubeCL's kernel compiler",
        numbered: false,
        addressed: false,
        compiles_kernels: true,
        in_host_memory: true,
        needs: "nothing",
        tested: "type-checked; not run",
        float_types: "not measured",
        limits: "building downloads an LLVM bundle (tracel-llvm)",
        backend: compiled_in!("cpu", Cpu, |_| Device::cpu()),
    },
    DeviceRow {
        name: "ndarray",
        summary: "the CPU, through ndarray",
        numbered: false,
        addressed: false,
        compiles_kernels: false,
        in_host_memory: true,
        needs: "nothing",
        tested: "the whole suite, on Linux (x86-64)",
        float_types: "f32, f64",
        limits: "deprecated by Burn; kept as a second opinion on the CPU",
        backend: compiled_in!("ndarray", NdArray, |_| {
            #[allow(deprecated, reason = "kept as an independent witness for tests")]
            let device = Device::ndarray();
            device
        }),
    },
    DeviceRow {
        name: "remote",
        summary: "a device that another process or machine hosts",
        numbered: false,
        addressed: true,
        compiles_kernels: false,
        in_host_memory: false,
        needs: "an address, remote:HOST:PORT, where `hybridnorm-train serve-device` runs",
        tested: "runs on one and two servers that host flex, on loopback; no GPU, no second machine",
        float_types: "those of the device that is hosted, by Burn's source; f32 was run",
        limits: "the same version on both sides; nothing is encrypted (docs/scaling.md)",
        backend: None,
    },
];

/// The names of the devices in this build.
pub fn compiled_in() -> String {
    let rows = DEVICES.iter().filter(|row| row.is_compiled_in());
    let names: Vec<&str> = rows.map(|row| row.name).collect();
    match names.is_empty() {
        true => "none".to_string(),
        false => names.join(", "),
    }
}

/// The table as Markdown: `docs/backends.md` holds it.
pub fn markdown() -> String {
    let mut text = String::from(
        "| device, Cargo feature | what it is | tested where | float types | needs | known limits |\n|---|---|---|---|---|---|\n",
    );
    for row in DEVICES {
        let DeviceRow {
            name,
            summary,
            tested,
            float_types,
            needs,
            limits,
            ..
        } = row;
        let number = row.place();
        // A String never refuses.
        let _ = writeln!(
            text,
            "| `{name}{number}` | {summary} | {tested} | {float_types} | {needs} | {limits} |"
        );
    }
    text
}
