//! What a verification found, for people and for machines.

use serde::Serialize;

use super::check::Check;

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase", tag = "status", content = "reason")]
pub enum Outcome {
    /// Every check passed.
    Passed,
    /// Some check did not, or the case could not be run.
    Failed(String),
    /// This version does not implement what the case needs.
    Unsupported(String),
}

/// One reference case.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// The case's folder.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Number of comparisons made.
    pub checks: usize,
    /// The comparison that came closest to its tolerance, or passed it furthest.
    pub worst: Option<Check>,
    /// The comparisons that failed.
    pub failures: Vec<Check>,
}

impl CaseReport {
    /// The report of a case whose checks were all made.
    pub fn from_checks(name: &str, checks: Vec<Check>) -> Self {
        let count = checks.len();
        let worst = checks
            .iter()
            .max_by(|a, b| a.share().total_cmp(&b.share()))
            .cloned();
        let failures: Vec<Check> = checks.into_iter().filter(|check| !check.passed).collect();
        let outcome = match (count, failures.len()) {
            (0, _) => Outcome::Failed("nothing could be compared".to_string()),
            (_, 0) => Outcome::Passed,
            (_, n) => Outcome::Failed(format!("{n} of {count} checks")),
        };
        Self {
            name: name.to_string(),
            outcome,
            checks: count,
            worst,
            failures,
        }
    }

    /// The report of a case that was not run to its end.
    pub fn without_checks(name: &str, outcome: Outcome) -> Self {
        Self {
            name: name.to_string(),
            outcome,
            checks: 0,
            worst: None,
            failures: Vec::new(),
        }
    }
}

impl core::fmt::Display for CaseReport {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            name,
            outcome,
            checks,
            worst,
            failures,
        } = self;
        match outcome {
            Outcome::Passed => write!(f, "ok           {name}: {checks} checks")?,
            Outcome::Failed(reason) => write!(f, "FAILED       {name}: {reason}")?,
            Outcome::Unsupported(reason) => write!(f, "unsupported  {name}: {reason}")?,
        }
        if let Some(worst) = worst {
            write!(f, "; largest {worst}")?;
        }
        for check in failures.iter().take(12) {
            write!(f, "\n             {check}")?;
        }
        match failures.len().saturating_sub(12) {
            0 => Ok(()),
            more => write!(f, "\n             and {more} more"),
        }
    }
}

impl core::fmt::Display for Check {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            what,
            error,
            tolerance,
            at,
            ..
        } = self;
        write!(f, "error {error:.1e} of {tolerance:.1e} allowed: {what}")?;
        if at.is_empty() {
            Ok(())
        } else {
            write!(f, " at {at}")
        }
    }
}

/// All cases of a reference folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The device that was verified.
    pub device: String,
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that this version cannot run.
    pub unsupported: usize,
    /// Every case.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Counts `cases`.
    pub fn new(device: String, cases: Vec<CaseReport>) -> Self {
        let count = |wanted: fn(&Outcome) -> bool| {
            cases.iter().filter(|case| wanted(&case.outcome)).count()
        };
        Self {
            device,
            passed: count(|o| matches!(o, Outcome::Passed)),
            failed: count(|o| matches!(o, Outcome::Failed(_))),
            unsupported: count(|o| matches!(o, Outcome::Unsupported(_))),
            cases,
        }
    }
}

impl core::fmt::Display for Report {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            device,
            passed,
            failed,
            unsupported,
            cases,
        } = self;
        let checks: usize = cases.iter().map(|case| case.checks).sum();
        let verdict = if *failed == 0 {
            "computes the authors' numbers"
        } else {
            "does NOT compute the authors' numbers"
        };
        write!(
            f,
            "{device} {verdict}: {checks} checks; {passed} passed, {failed} failed, {unsupported} unsupported"
        )
    }
}
