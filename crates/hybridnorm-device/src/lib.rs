//! Burn's devices by name.
//!
//! One table, [`DEVICES`], holds every device that Burn 0.22.1 computes on: its name, the Cargo feature that compiles it in,
//! what the machine must have, where this project has tested it, and its known limits. Command lines, tests and documentation
//! read that table. A [`DeviceSpec`] is a device by name; opening one that is not there is an error that says what to install or
//! which feature to add, where Burn itself would panic.
//!
//! ```
//! use hybridnorm_device::DeviceSpec;
//!
//! let spec: DeviceSpec = "cuda:1".parse()?;
//! match spec.open() {
//!     Ok(device) => println!("{spec} is ready: {device:?}"),
//!     Err(error) => println!("{error}"), // device cuda is not compiled in: rebuild with --features cuda (...)
//! }
//! # Ok::<(), hybridnorm_device::DeviceError>(())
//! ```
//!
//! This crate enables no backend. Its features are Burn's own names: `flex ndarray cpu wgpu vulkan metal webgpu cuda rocm`,
//! `fusion` and `autotune` for the backends that compile kernels, and `remote` for devices that [another process hosts](serve).

#![warn(missing_docs)]

mod error;
mod found;
pub mod fusion;
mod remote;
mod spec;
mod table;

pub use error::DeviceError;
pub use found::{Adapter, Inventory, adapter_name, inventory, memory_for};
pub use remote::{TOKEN, serve};
pub use spec::DeviceSpec;
pub use table::{DEVICES, DeviceRow, compiled_in, markdown};
