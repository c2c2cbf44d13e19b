//! The steps of a chore: each is shown, run and remembered, and the first failure decides the exit
//! code.

use std::fmt;
use std::process::{Command, ExitCode, ExitStatus};

use xshell::Cmd;

pub struct Report {
    chore: &'static str,
    steps: Vec<Step>,
}

struct Step {
    chore: &'static str,
    name: String,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Noted,
    Failed { code: u8, reason: String },
    NotRun { hint: String },
}

impl Report {
    pub fn new(chore: &'static str) -> Self {
        Self {
            chore,
            steps: Vec::new(),
        }
    }

    /// Runs a step, whatever became of those before it, and tells whether it passed.
    pub fn step(&mut self, name: impl Into<String>, command: Cmd<'_>) -> bool {
        let name = name.into();
        eprintln!("\n[{} / {name}] $ {command}", self.chore);
        // Not `Cmd::run`, which drops the exit code.
        let outcome = match Command::from(command).status() {
            Ok(status) => Outcome::of(status),
            Err(error) => Outcome::Failed {
                code: 127,
                reason: format!("could not start: {error}"),
            },
        };
        let passed = outcome == Outcome::Passed;
        self.push(name, outcome);
        passed
    }

    /// Records a step that cannot run here, for want of a tool or a device; `required` makes that a failure.
    pub fn not_run(&mut self, name: impl Into<String>, hint: impl Into<String>, required: bool) {
        let hint = hint.into();
        let outcome = match required {
            true => Outcome::Failed {
                code: 1,
                reason: format!("NOT RUN: {hint}"),
            },
            false => Outcome::NotRun { hint },
        };
        self.push(name.into(), outcome);
    }

    /// Records a step that this program did itself.
    pub fn record(&mut self, name: impl Into<String>, result: Result<(), String>) -> bool {
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(reason) => Outcome::Failed { code: 1, reason },
        };
        let passed = outcome == Outcome::Passed;
        self.push(name.into(), outcome);
        passed
    }

    /// Remembers a fact for the closing table, such as which adapter a device is.
    pub fn note(&mut self, fact: impl Into<String>) {
        self.push(fact.into(), Outcome::Noted);
    }

    pub fn append(&mut self, other: Report) {
        self.steps.extend(other.steps);
    }

    /// One line for each step.
    pub fn print(&self) {
        eprintln!();
        for step in &self.steps {
            eprintln!("{step}");
        }
        eprintln!();
    }

    /// The exit code of the first failed step. Prints the failures, and nothing when there is none:
    /// the last line is then the last tool's own.
    pub fn exit(&self) -> ExitCode {
        let mut first = None;
        for step in &self.steps {
            if let Outcome::Failed { code, .. } = step.outcome {
                eprintln!("xtask: {step}");
                first.get_or_insert(code);
            }
        }
        first.map_or(ExitCode::SUCCESS, ExitCode::from)
    }

    fn push(&mut self, name: String, outcome: Outcome) {
        self.steps.push(Step {
            chore: self.chore,
            name,
            outcome,
        });
    }
}

impl Outcome {
    fn of(status: ExitStatus) -> Self {
        if status.success() {
            return Self::Passed;
        }
        // No code: ended by a signal. Windows knows codes above 255.
        let code = status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1);
        Self::Failed {
            code,
            reason: status.to_string(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} / {:<28} ", self.chore, self.name)?;
        match &self.outcome {
            Outcome::Passed => f.write_str("passed"),
            Outcome::Noted => f.write_str("found"),
            Outcome::Failed { reason, .. } => write!(f, "FAILED ({reason})"),
            Outcome::NotRun { hint } => write!(f, "NOT RUN ({hint})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use xshell::{Shell, cmd};

    use super::*;

    #[test]
    fn the_first_failure_decides_the_exit_code() {
        let shell = Shell::new().unwrap();
        let mut report = Report::new("demo");
        report.step("good", cmd!(shell, "cargo --version"));
        assert_eq!(report.steps[0].outcome, Outcome::Passed);
        assert_eq!(report.exit(), ExitCode::SUCCESS);

        // Cargo exits with 101 for a command it does not know.
        report.step("bad", cmd!(shell, "cargo no-such-command"));
        report.step("absent", cmd!(shell, "no-such-program-anywhere"));
        assert_eq!(report.exit(), ExitCode::from(101));
        assert!(report.steps[2].to_string().contains("could not start"));
    }

    #[test]
    fn a_missing_tool_is_visible_and_fails_only_when_required() {
        let mut report = Report::new("demo");
        report.not_run("spelling", "no typos", false);
        assert!(report.steps[0].to_string().ends_with("NOT RUN (no typos)"));
        assert_eq!(report.exit(), ExitCode::SUCCESS);

        report.not_run("spelling", "no typos", true);
        assert_eq!(report.exit(), ExitCode::from(1));
    }
}
