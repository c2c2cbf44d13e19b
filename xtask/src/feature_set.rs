//! Feature sets: what cargo is told, so that the program and the tests share one build of Burn.

use crate::device::Backend;
use crate::workspace::SWITCHES;

/// The value of `--features` that compiles these backends into the whole workspace.
///
/// The test fixture is named beside a library because the features of a library do not reach its
/// dev-dependencies.
pub fn of(backends: &[Backend]) -> String {
    list(&WORKSPACE, backends.iter().map(Backend::name))
}

/// The same with the compile-time switches of the kernel-compiling backends, for the test of fusion.
///
/// Of the whole workspace too: with fewer packages, features of crates far below would differ, and cargo
/// would build all of Burn a second time instead of what lies above `burn-cubecl`.
pub fn fused(backends: &[Backend]) -> String {
    let [train, testing] = WORKSPACE;
    list(
        &[train, testing, "hybridnorm-core"],
        backends.iter().map(Backend::name).chain(SWITCHES),
    )
}

/// The whole workspace: the program, which passes its features down, and the fixture of the tests.
pub const WORKSPACE: [&str; 2] = ["hybridnorm-train", "hybridnorm-testing"];

fn list<'a>(packages: &[&str], features: impl Iterator<Item = &'a str>) -> String {
    features
        .flat_map(|feature| {
            packages
                .iter()
                .map(move |package| format!("{package}/{feature}"))
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_gets_every_backend_and_switch() {
        let backends = ["flex".parse().unwrap(), "wgpu".parse().unwrap()];
        assert_eq!(
            of(&backends),
            "hybridnorm-train/flex,hybridnorm-testing/flex,hybridnorm-train/wgpu,hybridnorm-testing/wgpu"
        );
        assert_eq!(
            fused(&backends[1..]),
            "hybridnorm-train/wgpu,hybridnorm-testing/wgpu,hybridnorm-core/wgpu,\
             hybridnorm-train/fusion,hybridnorm-testing/fusion,hybridnorm-core/fusion,\
             hybridnorm-train/autotune,hybridnorm-testing/autotune,hybridnorm-core/autotune"
        );
    }
}
