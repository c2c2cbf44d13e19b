//! The report of a comparison.

mod curves;
mod layers;
mod runs;
mod setting;
mod verdicts;

use std::path::Path;

use super::Report;
use super::error::ReportError;
use super::log::Log;
use crate::engine::METRICS;
use crate::lab::compare::{ArmResults, Axis, COMPARISON, Comparison};

/// What the runs of an arm have logged so far.
struct Logs<'a> {
    arm: &'a ArmResults,
    /// In the order of the seeds.
    runs: Vec<Log>,
}

pub(super) fn report(dir: &Path) -> Result<Report, ReportError> {
    let path = dir.join(COMPARISON);
    let comparison = Comparison::read(&path).map_err(|error| ReportError::File {
        path,
        reason: error.to_string(),
    })?;
    let logs = comparison.arms.iter().map(|arm| {
        let runs = arm.runs.iter();
        let runs = runs.map(|run| Log::read(&dir.join(&run.dir).join(METRICS)));
        let runs = runs.collect::<Result<_, _>>()?;
        Ok(Logs { arm, runs })
    });
    let logs: Vec<Logs> = logs.collect::<Result<_, ReportError>>()?;
    let mut sections = vec![verdicts::verdicts(&comparison)];
    sections.push(curves::curves(&comparison, &logs));
    sections.extend(layers::layers(&logs));
    sections.push(runs::runs(&comparison));
    sections.extend(setting::differences(&comparison, dir));
    sections.push(setting::setting(&comparison));
    Ok(Report {
        title: match comparison.contrast.axis {
            Axis::Placement => "Placements compared",
            Axis::Init => "Initialisations compared",
            Axis::LearningRate => "Learning rates compared",
            Axis::Depth => "Depths compared",
        }
        .to_string(),
        answer: Some(comparison.answer.clone()),
        sections,
    })
}
