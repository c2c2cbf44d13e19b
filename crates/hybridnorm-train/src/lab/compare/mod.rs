//! Placements held against each other over seeds, on the same data in the same order.
//!
//! A comparison is a folder of ordinary runs, `runs/ARM/seed-SEED`. An [`Arm`] is one choice of placement, initialisation, learning rate
//! and depth; a seed decides the data order and the initialisation of every arm alike, so that the difference between two arms is taken
//! seed by seed. What is left of that difference after the data and the draw are equal is what [`stats`] judges.
//!
//! | part | what |
//! |---|---|
//! | [`Grid`] | the choices, and the arms they make |
//! | [`Contrast`] | which arm is held against which |
//! | [`Outcome`] | how a run ended: `outcome.json`; divergence is a result |
//! | [`stats`] | paired differences, two intervals, a verdict |
//! | [`Comparison`] | all of it: `compare.json`, a table, a sentence |

mod answer;
mod arm;
mod comparison;
mod contrast;
mod outcome;
mod queue;
pub mod stats;

pub(crate) use answer::signed;
pub use arm::{Arm, Axis, Grid, Inits};
pub use comparison::{ArmResults, Comparison, RunResult, Setting};
pub use contrast::{Contrast, Row, View};
pub(crate) use outcome::tail;
pub use outcome::{OUTCOME, Outcome, State, divergence, ended_by, stuck};
pub use queue::{Job, run_all};

/// The comparison's file name.
pub const COMPARISON: &str = "compare.json";
/// The folder of its runs.
pub const RUNS: &str = "runs";
