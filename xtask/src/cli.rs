//! Every chore and its flags; the doc comments are the help.

use clap::{Parser, Subcommand};

use crate::check::CheckArgs;
use crate::ci::CiArgs;
use crate::parity::ParityArgs;
use crate::test::TestArgs;

/// The chores of the hybridnorm workspace.
///
/// Every command builds in the release profile with the features of `hybridnorm-train`, so that
/// `cargo xtask test` and `cargo run --release -p hybridnorm-train` share one build of Burn.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    pub chore: Chore,
}

#[derive(Subcommand)]
pub enum Chore {
    /// Run every test of the workspace: doc-tests, then the rest with cargo-nextest.
    ///
    /// Tests run in the release profile: they are numeric, and so they share one build of Burn with
    /// `cargo run --release -p hybridnorm-train`. Without cargo-nextest, `cargo test` runs them.
    Test(TestArgs),
    /// Hold the code against the house rules: format, clippy, documentation, licences, spelling.
    Check(CheckArgs),
    /// Run `check`, then `test`: what must pass before work lands.
    Ci(CiArgs),
    /// Hold the model against the values of another implementation: `hybridnorm-train verify`.
    Parity(ParityArgs),
    /// Run all of cargo-deny: vulnerable and yanked dependencies too, which needs the network.
    Audit,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tests_run_on_flex_unless_told() {
        let Chore::Test(args) = Cli::parse_from(["xtask", "test"]).chore else {
            panic!("`test` parsed as another chore");
        };
        assert_eq!(
            args.devices.features(),
            "hybridnorm-train/flex,hybridnorm-testing/flex"
        );
        assert!(args.names.is_empty());
    }

    #[test]
    fn devices_may_be_listed_or_repeated() {
        for arguments in [
            vec!["xtask", "test", "--device", "flex,wgpu"],
            vec!["xtask", "test", "--device", "flex", "--device", "wgpu"],
        ] {
            let Chore::Test(args) = Cli::parse_from(arguments).chore else {
                panic!("`test` parsed as another chore");
            };
            assert_eq!(
                args.devices.features(),
                "hybridnorm-train/flex,hybridnorm-testing/flex,hybridnorm-train/wgpu,hybridnorm-testing/wgpu"
            );
        }
    }
}
