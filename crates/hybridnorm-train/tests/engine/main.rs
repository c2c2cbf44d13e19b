//! The engine as a whole: resume, accumulation, damaged checkpoints, refusals.

mod faults;
mod progress;
mod refusals;
mod resume;
mod tiny;

/// Every compiled-in device.
fn devices() -> Vec<burn::tensor::Device> {
    let devices = hybridnorm_testing::devices();
    devices.into_iter().map(|(_, device)| device).collect()
}
