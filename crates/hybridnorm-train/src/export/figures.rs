//! What a run's log says of its checkpoint.

use std::fs;

use crate::engine::{Evaluation, Record, StepRecord};
use crate::stored::Stored;

/// The last figures of a log.
#[derive(Debug, Default)]
pub struct Figures {
    /// The last step's.
    pub last: Option<StepRecord>,
    /// The last evaluation's, and its step.
    pub evaluation: Option<(u64, Evaluation)>,
}

impl Figures {
    /// Those up to the checkpoint; lines that cannot be read say nothing.
    pub fn of(stored: &Stored) -> Self {
        let text = stored
            .log
            .as_ref()
            .and_then(|log| fs::read_to_string(log).ok());
        let text = text.unwrap_or_default();
        let mut figures = Self::default();
        for record in text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
        {
            match record {
                Record::Step(step) if step.step <= stored.state.step => figures.last = Some(step),
                Record::Evaluation {
                    step, evaluation, ..
                } if step <= stored.state.step => {
                    figures.evaluation = Some((step, evaluation));
                }
                _ => {}
            }
        }
        figures
    }
}
