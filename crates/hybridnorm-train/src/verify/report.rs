//! What a verification found, for people and for machines.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::agreement::Agreement;
use super::check::Check;
use super::yardstick::YARDSTICK;

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

/// One reference case, or a model that only the yardstick judges.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CaseReport {
    /// The case's folder.
    pub name: String,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Number of comparisons with the reference.
    pub checks: usize,
    /// The one that came closest to its tolerance, or passed it furthest.
    pub worst: Option<Check>,
    /// Those that failed, in the order of the computation.
    pub failures: Vec<Check>,
    /// The comparison with the yardstick.
    pub agreement: Option<Agreement>,
}

impl CaseReport {
    /// The report of a case whose checks were all made.
    pub fn judged(name: &str, checks: Vec<Check>, agreement: Option<Agreement>) -> Self {
        let count = checks.len();
        let worst = checks
            .iter()
            .max_by(|a, b| a.share().total_cmp(&b.share()))
            .cloned();
        let failures: Vec<Check> = checks.into_iter().filter(|check| !check.passed).collect();
        let divergence = agreement.as_ref().and_then(|a| a.first.as_ref());
        let outcome = match (count, failures.len(), divergence) {
            (0, ..) => Outcome::Failed("nothing could be compared".to_string()),
            (_, 0, None) => Outcome::Passed,
            (_, 0, Some(first)) => {
                Outcome::Failed(format!("differs from {YARDSTICK}, first in {first}"))
            }
            (_, n, None) => Outcome::Failed(format!("{n} of {count} checks")),
            (_, n, Some(first)) => Outcome::Failed(format!(
                "{n} of {count} checks; differs from {YARDSTICK}, first in {first}"
            )),
        };
        Self {
            name: name.to_string(),
            outcome,
            checks: count,
            worst,
            failures,
            agreement,
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
            agreement: None,
        }
    }
}

impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            outcome,
            checks,
            worst,
            failures,
            agreement,
        } = self;
        match outcome {
            Outcome::Passed => write!(f, "ok           {name}: {checks} checks")?,
            Outcome::Failed(reason) => write!(f, "FAILED       {name}: {reason}")?,
            Outcome::Unsupported(reason) => write!(f, "unsupported  {name}: {reason}")?,
        }
        if let Some(worst) = worst {
            write!(f, "; largest {worst}")?;
        }
        if let Some(agreement) = agreement {
            let Agreement {
                checks,
                failed,
                ties,
                ..
            } = agreement;
            match failed {
                0 => write!(f, "; {checks} values agree with {YARDSTICK}")?,
                _ => write!(f, "; {failed} of {checks} values differ from {YARDSTICK}")?,
            }
            for tie in ties {
                write!(
                    f,
                    "\n             tie between experts, not compared from there on: {tie}"
                )?;
            }
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

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

/// Whether kernels were fused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fusion {
    /// The device compiles no kernels, or this build has no fusion.
    NotCompiledIn,
    /// They were.
    On,
    /// They could have been.
    Off,
}

/// All cases of a reference folder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The device that was verified.
    pub device: String,
    /// Whether kernels were fused.
    pub fusion: Fusion,
    /// Whether the device passed every case that this version can run.
    pub certified: bool,
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
        let (passed, failed) = (
            count(|o| matches!(o, Outcome::Passed)),
            count(|o| matches!(o, Outcome::Failed(_))),
        );
        Self {
            device,
            fusion: Fusion::NotCompiledIn,
            certified: failed == 0 && passed > 0,
            passed,
            failed,
            unsupported: count(|o| matches!(o, Outcome::Unsupported(_))),
            cases,
        }
    }

    /// The comparison that came closest to its tolerance: with the reference, and with the yardstick.
    fn closest(&self) -> [Option<(&str, &Check)>; 2] {
        let reference = self.cases.iter().map(|c| (c, c.worst.as_ref()));
        let yardstick = self
            .cases
            .iter()
            .map(|c| (c, c.agreement.as_ref().and_then(|a| a.worst.as_ref())));
        fn largest<'a>(
            checks: impl Iterator<Item = (&'a CaseReport, Option<&'a Check>)>,
        ) -> Option<(&'a str, &'a Check)> {
            checks
                .filter_map(|(case, check)| Some((case.name.as_str(), check?)))
                .max_by(|a, b| a.1.share().total_cmp(&b.1.share()))
        }
        [largest(reference), largest(yardstick)]
    }
}

/// The verdict, a line for each judge.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            fusion,
            passed,
            failed,
            unsupported,
            cases,
            ..
        } = self;
        let checks: usize = cases.iter().map(|case| case.checks).sum();
        let agreements: Vec<&Agreement> = cases
            .iter()
            .filter_map(|case| case.agreement.as_ref())
            .collect();
        let [reference, yardstick] = self.closest();
        let closest = |closest: Option<(&str, &Check)>| match closest {
            Some((case, check)) => {
                format!(
                    "; closest to its limit, {:.2} of it: {} in {case}",
                    check.share(),
                    check.what
                )
            }
            None => String::new(),
        };
        writeln!(f)?;
        match fusion {
            Fusion::NotCompiledIn => writeln!(f, "device       {device}")?,
            Fusion::On => writeln!(f, "device       {device}, kernels fused")?,
            Fusion::Off => writeln!(f, "device       {device}, kernels not fused")?,
        }
        writeln!(f, "authors      {checks} checks{}", closest(reference))?;
        match agreements.is_empty() {
            true => writeln!(
                f,
                "{YARDSTICK:<13}not compared: it is this device, or not compiled in"
            )?,
            false => {
                let values: usize = agreements.iter().map(|a| a.checks).sum();
                let models = agreements.len();
                let ties: usize = agreements.iter().map(|a| a.ties.len()).sum();
                let ties = match ties {
                    0 => String::new(),
                    n => format!(" (ended early {n} times, by ties between experts)"),
                };
                writeln!(
                    f,
                    "{YARDSTICK:<13}{values} values of {models} models{ties}{}",
                    closest(yardstick)
                )?;
            }
        }
        let divergence = cases.iter().find_map(|case| {
            let first = case.agreement.as_ref()?.first.as_ref()?;
            Some((&case.name, first))
        });
        if let Some((case, first)) = divergence {
            writeln!(f, "differs      first in {case}, {first}")?;
        }
        let verdict = match self.certified {
            true => "computes the authors' numbers",
            false => "does NOT compute the authors' numbers",
        };
        write!(
            f,
            "verdict      {device} {verdict}: {checks} checks; {passed} passed, {failed} failed, {unsupported} unsupported"
        )
    }
}
