//! What can be told of a placement in minutes, before any long run.
//!
//! | part | what |
//! |---|---|
//! | [`Setting`], [`Subject`], [`Measure`] | what is measured, and of which model |
//! | [`Lab`] | measures: short runs, and gradients of weights that were scaled |
//! | [`Line`] | a line of `probe.jsonl`: one measurement |
//! | [`ProbeFile`] | that file, to which a later call adds what is missing |
//! | [`search`] | which learning rate to try next |
//! | [`Summary`] | a row for each placement and depth, and one sentence |
//!
//! Definitions: `docs/probe.md`.

mod answer;
mod coupling;
mod file;
mod record;
pub mod search;
mod short_run;
mod subject;
mod summary;
mod tables;

pub use coupling::{LayerCoupling, ModelCoupling, SCALES, Scaled};
pub use file::{PROBE, ProbeFile};
pub use record::{Coupling, Divergence, Layers, Line, Look, Setting, Trial};
pub use short_run::Lab;
pub(crate) use short_run::{short, warmup};
pub use subject::{Job, Measure, Subject, jobs};
pub use summary::{InitLoss, Row, SUMMARY, Summary};
pub use tables::SummaryTable;
