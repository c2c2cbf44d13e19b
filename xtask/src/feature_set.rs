//! Feature sets: what cargo is told, so that the program and the tests share one build of Burn.

use crate::device::Backend;
use crate::workspace::SWITCHES;

/// The value of `--features` that compiles these backends into every one of `packages`.
///
/// The test fixture is named beside a library because the features of a library do not reach its
/// dev-dependencies.
pub fn of(packages: &[&str], backends: &[Backend]) -> String {
    list(packages, backends.iter().map(Backend::name))
}

/// The same with the compile-time switches of the kernel-compiling backends.
pub fn fused(packages: &[&str], backends: &[Backend]) -> String {
    list(packages, backends.iter().map(Backend::name).chain(SWITCHES))
}

/// The whole workspace: the program, which passes its features down, and the fixture of the tests.
pub const WORKSPACE: [&str; 2] = ["hybridnorm-train", "hybridnorm-testing"];
/// The test of kernel fusion and autotune.
pub const FUSED_TEST: [&str; 2] = ["hybridnorm-core", "hybridnorm-testing"];

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
            of(&WORKSPACE, &backends),
            "hybridnorm-train/flex,hybridnorm-testing/flex,hybridnorm-train/wgpu,hybridnorm-testing/wgpu"
        );
        assert_eq!(fused(&["a"], &backends[1..]), "a/wgpu,a/fusion,a/autotune");
    }
}
