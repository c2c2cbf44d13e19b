//! What the integration tests share.
#![allow(dead_code, missing_docs)]

use burn::tensor::Device;

/// Every device that is compiled in.
pub fn devices() -> Vec<Device> {
    let devices = hybridnorm_testing::devices();
    devices.into_iter().map(|(_, device)| device).collect()
}
