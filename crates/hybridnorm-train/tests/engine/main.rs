//! The engine as a whole: resume, accumulation, damaged checkpoints, refusals.

#[path = "../common/mod.rs"]
mod common;
mod faults;
mod progress;
mod refusals;
mod resume;
mod tiny;
