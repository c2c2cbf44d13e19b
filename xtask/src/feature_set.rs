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

/// The packages of the tests of kernel fusion. Not the workspace: `burn-fusion` switches on default features of the crates below all
/// of Burn, so this set shares no build with the others, and should be small.
pub const FUSED: [&str; 4] = [
    "hybridnorm-core",
    "hybridnorm-moe",
    "hybridnorm-testing",
    "hybridnorm-train",
];

/// The value of `--features` that compiles these backends, and the compile-time switches of the kernel-compiling ones, into [`FUSED`].
pub fn fused(backends: &[Backend]) -> String {
    let compiling = backends.iter().filter(|backend| backend.compiles_kernels());
    list(&FUSED, compiling.map(Backend::name).chain(SWITCHES))
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
            fused(&backends),
            "hybridnorm-core/wgpu,hybridnorm-moe/wgpu,hybridnorm-testing/wgpu,hybridnorm-train/wgpu,\
             hybridnorm-core/fusion,hybridnorm-moe/fusion,hybridnorm-testing/fusion,hybridnorm-train/fusion,\
             hybridnorm-core/autotune,hybridnorm-moe/autotune,hybridnorm-testing/autotune,hybridnorm-train/autotune"
        );
    }
}
