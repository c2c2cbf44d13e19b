//! The one fixture that gives every test its devices.
//!
//! No test names a backend: it takes a [`Device`] from here and so runs on each one that is compiled in.

#![warn(missing_docs)]

use burn::tensor::Device;

/// Every compiled-in device with its name, inference only; add `.autodiff()` for gradients.
pub fn devices() -> Vec<(&'static str, Device)> {
    vec![
        #[cfg(feature = "flex")]
        ("flex", Device::flex()),
        #[cfg(feature = "ndarray")]
        ("ndarray", ndarray()),
        #[cfg(feature = "wgpu")]
        (
            "wgpu",
            Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        ),
        #[cfg(feature = "cuda")]
        ("cuda", Device::cuda(0)),
    ]
}

#[cfg(feature = "ndarray")]
#[allow(
    deprecated,
    reason = "Burn deprecates it; it is kept as a second opinion on the CPU"
)]
fn ndarray() -> Device {
    Device::ndarray()
}

/// Runs `test` on every compiled-in device and says on which one it failed.
///
/// # Panics
/// When `test` does, and when no device is compiled in.
pub fn on_every_device(test: impl Fn(&Device)) {
    let devices = devices();
    assert!(!devices.is_empty(), "no device is compiled in");
    for (name, device) in devices {
        let guard = Named(name);
        test(&device);
        core::mem::forget(guard);
    }
}

/// Names the device while a panic unwinds.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        eprintln!("the test failed on device {}", self.0);
    }
}
