//! From flags to a run that is ready to start: the configuration, the data, and what to hold the result against.

use std::sync::Arc;

use super::flags::RunFlags;
use super::request::Request;
use super::run_data::{DataFacts, RunData};
use crate::data::Validation;
use crate::engine::{BatchSource, RunDir};
use crate::error::Error;
use crate::eval::yardstick::Yardsticks;

/// The evaluation at the end sees this many times the sequences of those before.
const FINAL_EVALUATION: usize = 4;

/// A run that is ready to start. Nothing has been written.
pub(super) struct ReadyRun {
    pub request: Request,
    pub data: DataFacts,
    pub batches: Arc<dyn BatchSource>,
    /// Windows of an evaluation during training.
    pub interval: Validation,
    /// Windows of the one at the end; the yardsticks speak of their text.
    pub last: Validation,
    pub yardsticks: Yardsticks,
    /// The training text and the whole validation text, for the yardsticks that take their time. Of prepared data, a sample of
    /// the one and the text of the last evaluation.
    pub texts: [Vec<u8>; 2],
    /// Bytes of the latter.
    pub zstd_bytes: u64,
}

impl ReadyRun {
    /// Resolves the flags, reads the data and measures the yardsticks.
    pub(super) fn new(flags: &RunFlags) -> Result<Self, Error> {
        let request = flags.resolve()?;
        if !request.resume {
            RunDir::probe(&request.out)?;
        }
        Self::of(request)
    }

    /// Reads the data that `request` names and measures the yardsticks.
    pub(super) fn of(request: Request) -> Result<Self, Error> {
        let RunData {
            facts,
            batches,
            held_out,
            train_text,
            validation_text,
        } = RunData::read(&request)?;
        let training = &request.config.training;
        let interval = training.eval_sequences;
        let last = interval.saturating_mul(FINAL_EVALUATION);
        let interval = Validation::new(&*held_out, training.seq, Some(interval))?;
        let last = Validation::new(&*held_out, training.seq, Some(last))?;
        let yardsticks = Yardsticks::measure(&[&train_text], &last.text())?;
        let validation_text = validation_text.unwrap_or_else(|| last.text());
        Ok(Self {
            request,
            data: facts,
            batches: Arc::new(batches),
            interval,
            last,
            yardsticks,
            zstd_bytes: validation_text.len() as u64,
            texts: [train_text, validation_text],
        })
    }
}
