//! The engine as a whole: resume, accumulation, damaged checkpoints, refusals.

mod faults;
mod guards;
mod parallel;
mod progress;
mod refusals;
#[cfg(feature = "remote")]
mod remote;
mod resume;
mod routers;
mod sparse;
mod stages;
mod tiny;
