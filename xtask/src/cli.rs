//! Every chore and its flags; the doc comments are the help.

use clap::{Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::check::CheckArgs;
use crate::ci::CiArgs;
use crate::features::FeaturesArgs;
use crate::gpu::GpuArgs;
use crate::parity::ParityArgs;
use crate::release::ReleaseArgs;
use crate::test::TestArgs;
use crate::web::WebArgs;

/// The chores of the hybridnorm workspace.
///
/// What runs is built in the release profile with the features of `hybridnorm-train`, so that one build of
/// Burn serves the tests and the program.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub struct Cli {
    #[command(subcommand)]
    pub chore: Chore,
}

#[derive(Subcommand)]
pub enum Chore {
    /// Run every test of the workspace on each device: doc-tests, then the rest with cargo-nextest.
    ///
    /// A device without an adapter is reported as not run, and fails when `--require` names it. Tests run in
    /// the release profile: they are numeric. Without cargo-nextest, `cargo test` runs them.
    Test(TestArgs),
    /// Hold the code against the house rules: format, clippy, documentation, licences, spelling, unused
    /// dependencies.
    Check(CheckArgs),
    /// Run `check`, then `test`: what must pass before work lands.
    Ci(CiArgs),
    /// Type-check every backend feature and each crate alone, in a target directory of their own.
    Features(FeaturesArgs),
    /// Hold the model against the values of another implementation: `hybridnorm-train verify`.
    Parity(ParityArgs),
    /// Measure a training step beside PyTorch's, alternately, on the same shapes.
    Bench(BenchArgs),
    /// Pack the program, its tests and the benchmark for a bare machine with a GPU: `target/gpu/`.
    Gpu(GpuArgs),
    /// Build the page that runs models in a browser, and train a few models for it: `target/web/page/`.
    Web(WebArgs),
    /// Build the documentation and rewrite the pages that the program generates.
    Docs,
    /// Run all of cargo-deny, vulnerable and yanked dependencies included, and list what is out of date.
    /// Needs the network.
    Audit,
    /// Publish the crates that are meant for it, in order.
    Release(ReleaseArgs),
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::test::TestArgs;

    fn test(arguments: &[&str]) -> TestArgs {
        let line = ["xtask", "test"].iter().chain(arguments);
        match Cli::parse_from(line).chore {
            Chore::Test(args) => args,
            _ => panic!("`test` parsed as another chore"),
        }
    }

    fn devices(args: &TestArgs) -> String {
        let all = args.devices.with(&args.require);
        all.iter()
            .map(|backend| backend.name())
            .collect::<Vec<_>>()
            .join(",")
    }

    #[test]
    fn flags_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn tests_run_on_both_cpu_backends_and_wgpu_unless_told() {
        let args = test(&[]);
        assert_eq!(devices(&args), "flex,ndarray,wgpu");
        assert!(args.names.is_empty() && args.require.is_empty());
    }

    #[test]
    fn devices_may_be_listed_or_repeated_and_a_required_one_is_built() {
        for arguments in [
            vec!["--device", "flex,wgpu"],
            vec!["--device", "flex", "--device", "wgpu"],
            vec!["--device", "flex", "--require", "wgpu,flex"],
        ] {
            assert_eq!(devices(&test(&arguments)), "flex,wgpu");
        }
        assert_eq!(
            devices(&test(&["--require", "cuda"])),
            "flex,ndarray,wgpu,cuda"
        );
    }

    #[test]
    fn the_page_for_contributors_has_every_chore() {
        let page = include_str!("../../CONTRIBUTING.md");
        for chore in Cli::command().get_subcommands() {
            let call = format!("`cargo xtask {}", chore.get_name());
            assert!(page.contains(&call), "{call}");
        }
    }

    #[test]
    fn every_chore_parses() {
        for line in [
            "check --require-all",
            "ci --require flex,ndarray,wgpu --require-all --no-fused --web",
            "features cuda hybridnorm-core",
            "parity --device flex --fusion both -- --json",
            "bench 6m 151m:seq=4096,batch=2 --rounds 1 --json out.json",
            "gpu --device flex --features= --test parity --run",
            "web --placements pre,post --steps 10 --out page --device flex",
            "docs",
            "audit",
            "release --dry-run",
        ] {
            let words = ["xtask"].into_iter().chain(line.split(' '));
            if let Err(error) = Cli::try_parse_from(words) {
                panic!("{line}: {error}");
            }
        }
    }
}
