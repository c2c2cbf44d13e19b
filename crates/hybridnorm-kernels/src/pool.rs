//! The threads that the CPU computes on.

use burn::tensor::Device;

/// Runs `work` on a thread of the pool that `flex` computes on, where `device` is `flex`; elsewhere on this thread.
///
/// An operation that is called from another thread hands its work to the pool and waits: both the pool's threads and the caller are
/// woken up for each of a step's thousand operations. From within, it starts at once and divides what is left.
pub fn on_pool<T: Send>(device: &Device, work: impl FnOnce() -> T + Send) -> T {
    #[cfg(feature = "flex")]
    if is_flex(device) {
        return rayon::scope(|_| work());
    }
    let _ = device;
    work()
}

#[cfg(feature = "flex")]
fn is_flex(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    let plain = device.clone().inner();
    matches!(plain.as_dispatch(), DispatchDevice::Flex(_))
}
