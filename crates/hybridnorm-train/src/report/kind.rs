//! What a directory holds that a report can be of.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ReportError;
use crate::engine::CONFIG;
use crate::lab::compare::COMPARISON;
use crate::lab::probe::PROBE;

/// How far below a directory something is looked for: a comparison's `runs/ARM/seed-SEED` are two below its `runs`.
const DEPTH: usize = 2;
/// How far above: a checkpoint's files are two below the run.
const HEIGHT: usize = 2;

/// What a report can be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of placements over seeds.
    Comparison,
    /// Of placements in minutes.
    Probe,
    /// One.
    Run,
}

impl Kind {
    /// What `dir` holds, by the file that says so.
    pub(super) fn of(dir: &Path) -> Option<Self> {
        let files = [
            (COMPARISON, Self::Comparison),
            (PROBE, Self::Probe),
            (CONFIG, Self::Run),
        ];
        let mut files = files.into_iter();
        let (_, kind) = files.find(|(name, _)| dir.join(name).is_file())?;
        Some(kind)
    }
}

/// Why there is no report of `dir`, which holds none of them, and what the user may have meant.
pub(super) fn nothing(dir: &Path) -> ReportError {
    let path = dir.to_path_buf();
    if !dir.exists() {
        return ReportError::Missing { path };
    }
    let mut near = Vec::new();
    below(dir, DEPTH, &mut near);
    if near.is_empty() {
        let above = dir.ancestors().skip(1).take(HEIGHT);
        let above = above.map(|dir| match dir.as_os_str().is_empty() {
            true => PathBuf::from("."),
            false => dir.to_path_buf(),
        });
        near.extend(above.filter(|dir| Kind::of(dir).is_some()));
    }
    ReportError::Nothing { path, near }
}

/// Adds the directories below `dir` that hold something, in the order of their names; none inside another.
fn below(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    // What cannot be read holds nothing that could be named.
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    dirs.retain(|path| path.is_dir());
    dirs.sort();
    for dir in dirs {
        match Kind::of(&dir) {
            Some(_) => found.push(dir),
            None if depth > 1 => below(&dir, depth - 1, found),
            None => {}
        }
    }
}
