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
    name: &'static str,
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed { code: u8, reason: String },
    NotRun { hint: &'static str },
}

impl Report {
    pub fn new(chore: &'static str) -> Self {
        Self {
            chore,
            steps: Vec::new(),
        }
    }

    /// Runs a step, whatever became of those before it.
    pub fn step(&mut self, name: &'static str, command: Cmd<'_>) {
        eprintln!("\n[{} / {name}] $ {command}", self.chore);
        // Not `Cmd::run`, which drops the exit code.
        let outcome = match Command::from(command).status() {
            Ok(status) => Outcome::of(status),
            Err(error) => Outcome::Failed {
                code: 127,
                reason: format!("could not start: {error}"),
            },
        };
        self.push(name, outcome);
    }

    /// Records a step whose tool is missing; `required` makes that a failure.
    pub fn not_run(&mut self, name: &'static str, hint: &'static str, required: bool) {
        let outcome = match required {
            true => Outcome::Failed {
                code: 1,
                reason: hint.to_owned(),
            },
            false => Outcome::NotRun { hint },
        };
        self.push(name, outcome);
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

    fn push(&mut self, name: &'static str, outcome: Outcome) {
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
        write!(f, "{} / {:<24} ", self.chore, self.name)?;
        match &self.outcome {
            Outcome::Passed => f.write_str("passed"),
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
