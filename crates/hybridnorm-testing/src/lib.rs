//! The one fixture that gives every test its devices.
//!
//! No test names a backend. It applies the template [`every_device`] and becomes one test for each compiled-in device, named after it:
//! `my_test::case_1_flex`, `my_test::case_3_wgpu`.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use hybridnorm_testing::{apply, every_device};
//!
//! #[apply(every_device!)]
//! fn one_and_one_is_two(#[case] device: &Device) {
//!     let two = Tensor::<1>::ones([2], device).sum();
//!     assert_eq!(two.into_scalar::<f32>(), 2.0);
//! }
//! # fn main() {}
//! ```

#![warn(missing_docs)]

mod numbers;
mod python;

pub use macro_rules_attribute::apply;
pub use numbers::{cast, gradients, largest, largest_difference, parameters, values};
pub use python::python;

use burn::tensor::Device;
use hybridnorm_device::DeviceSpec;

/// Makes a test one case for each device that is compiled in, by the features of the test's own crate, which are those of
/// `hybridnorm-device`; `flex` always is. Add `.autodiff()` for gradients.
#[macro_export]
macro_rules! every_device {
    ($($test:tt)*) => {
        #[rstest::rstest]
        #[case::flex($crate::open("flex"))]
        #[cfg_attr(feature = "ndarray", case::ndarray($crate::open("ndarray")))]
        #[cfg_attr(feature = "wgpu", case::wgpu($crate::open("wgpu")))]
        #[cfg_attr(feature = "vulkan", case::vulkan($crate::open("vulkan")))]
        #[cfg_attr(feature = "metal", case::metal($crate::open("metal")))]
        #[cfg_attr(feature = "webgpu", case::webgpu($crate::open("webgpu")))]
        #[cfg_attr(feature = "cuda", case::cuda($crate::open("cuda")))]
        #[cfg_attr(feature = "rocm", case::rocm($crate::open("rocm")))]
        #[cfg_attr(feature = "cpu", case::cpu($crate::open("cpu")))]
        $($test)*
    };
}

/// As [`every_device`], for tests that run the program and so need a device's name only: `fn test(#[case] device: &str)`.
#[macro_export]
macro_rules! every_device_name {
    ($($test:tt)*) => {
        #[rstest::rstest]
        #[case::flex("flex")]
        #[cfg_attr(feature = "ndarray", case::ndarray("ndarray"))]
        #[cfg_attr(feature = "wgpu", case::wgpu("wgpu"))]
        #[cfg_attr(feature = "vulkan", case::vulkan("vulkan"))]
        #[cfg_attr(feature = "metal", case::metal("metal"))]
        #[cfg_attr(feature = "webgpu", case::webgpu("webgpu"))]
        #[cfg_attr(feature = "cuda", case::cuda("cuda"))]
        #[cfg_attr(feature = "rocm", case::rocm("rocm"))]
        #[cfg_attr(feature = "cpu", case::cpu("cpu"))]
        $($test)*
    };
}

/// A device by name, inference only, open until the process ends.
///
/// # Panics
/// When it is not compiled in or not on this machine: `cargo xtask test` leaves such cases out and says so.
pub fn open(name: &str) -> &'static Device {
    let spec: DeviceSpec = name.parse().unwrap_or_else(|error| panic!("{error}"));
    let device = spec.open().unwrap_or_else(|error| panic!("{error}"));
    Box::leak(Box::new(device))
}

/// One device, for tests of files and refusals that compute nothing worth repeating: the best that is compiled in and there.
///
/// # Panics
/// When there is none.
pub fn any_device() -> Device {
    let spec = DeviceSpec::best().unwrap_or_else(|error| panic!("{error}"));
    spec.open().unwrap_or_else(|error| panic!("{error}"))
}
