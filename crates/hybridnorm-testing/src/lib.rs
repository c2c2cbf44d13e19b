//! The one fixture that gives every test its devices.
//!
//! No test names a backend. It applies the template [`every_device`] and becomes one test for each compiled-in device, named after it:
//! `my_test::case_1_flex`, `my_test::case_3_wgpu`.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use hybridnorm_testing::every_device;
//! use rstest::rstest;
//! use rstest_reuse::apply;
//!
//! #[apply(every_device)]
//! fn one_and_one_is_two(#[case] device: &Device) {
//!     let two = Tensor::<1>::ones([2], device).sum();
//!     assert_eq!(two.into_scalar::<f32>(), 2.0);
//! }
//! # fn main() {}
//! ```

#![warn(missing_docs)]

mod numbers;

pub use numbers::{cast, gradients, largest, largest_difference, parameters, values};

use burn::tensor::Device;
use hybridnorm_device::DeviceSpec;
use rstest_reuse::template;

/// One case for each compiled-in device; add `.autodiff()` for gradients.
#[template]
#[export]
#[rstest]
#[cfg_attr(feature = "flex", case::flex(::hybridnorm_testing::open("flex")))]
#[cfg_attr(
    feature = "ndarray",
    case::ndarray(::hybridnorm_testing::open("ndarray"))
)]
#[cfg_attr(feature = "wgpu", case::wgpu(::hybridnorm_testing::open("wgpu")))]
#[cfg_attr(feature = "vulkan", case::vulkan(::hybridnorm_testing::open("vulkan")))]
#[cfg_attr(feature = "metal", case::metal(::hybridnorm_testing::open("metal")))]
#[cfg_attr(feature = "webgpu", case::webgpu(::hybridnorm_testing::open("webgpu")))]
#[cfg_attr(feature = "cuda", case::cuda(::hybridnorm_testing::open("cuda")))]
#[cfg_attr(feature = "rocm", case::rocm(::hybridnorm_testing::open("rocm")))]
#[cfg_attr(feature = "cpu", case::cpu(::hybridnorm_testing::open("cpu")))]
pub fn every_device(#[case] device: &Device) {}

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
