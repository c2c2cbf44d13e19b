//! What the integration tests share.
#![allow(dead_code, missing_docs)]

use burn::tensor::Device;

/// Every device that is compiled in.
pub fn devices() -> Vec<Device> {
    vec![
        #[cfg(feature = "flex")]
        Device::flex(),
        #[cfg(feature = "ndarray")]
        Device::ndarray(),
    ]
}
