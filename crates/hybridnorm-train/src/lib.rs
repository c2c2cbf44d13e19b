//! The library behind the `hybridnorm-train` program.
#![warn(missing_docs)]
#![recursion_limit = "256"]

mod allocator;
pub mod amount;
mod aside;
pub mod bench;
pub mod checkpoint;
pub mod cli;
pub use hybridnorm_data as data;
pub use hybridnorm_device as device;
pub use hybridnorm_generate as generate;
pub mod engine;
pub mod error;
pub mod eval;
pub mod export;
pub mod guard;
pub mod hub;
pub mod import;
mod json;
pub mod lab;
pub mod memory;
pub mod mfu;
pub mod model;
pub mod presets;
pub mod recipe;
pub mod report;
pub mod run;
mod shell;
mod sizes;
pub mod stored;
pub mod verify;
