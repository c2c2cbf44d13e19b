//! What the program measures of itself, in the shapes and with the rules of other implementations, so that the two can
//! be put side by side.
//!
//! | measurement | what is timed |
//! |---|---|
//! | [`StepBench`] | one training step: forward, loss, backward, gradient norm, clipping, AdamW |
//! | [`GenerateBench`] | greedy generation with a key/value cache, of one text or several |
//! | [`CheckpointBench`] | saving a run's state to the disk, and restoring it |

mod checkpoint;
mod generate;
mod looks;
mod machine;
mod profile;
mod spread;
mod step;
mod step_report;
mod step_words;

pub use checkpoint::{CheckpointBench, CheckpointReport};
pub use generate::{GenerateBench, GenerateReport};
pub use profile::Profile;
pub use spread::Spread;
pub(crate) use spread::quantile;
pub use step::StepBench;
pub use step_report::StepReport;
