//! The engine as a whole: resume, accumulation, damaged checkpoints, refusals.

mod diagnostics;
mod documents;
mod faults;
mod guards;
mod parallel;
mod probe;
mod progress;
mod refusals;
#[cfg(feature = "remote")]
mod remote;
mod resume;
mod routers;
mod schema;
mod sparse;
mod stages;
mod tensorboard;
mod tiny;
