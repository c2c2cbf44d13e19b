//! The library behind the `hybridnorm-train` program.
#![warn(missing_docs)]
#![recursion_limit = "256"]

pub mod checkpoint;
pub mod data;
pub mod engine;
pub mod eval;
pub mod recipe;
pub mod run;
pub mod verify;
