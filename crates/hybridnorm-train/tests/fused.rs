//! `verify` with kernel fusion compiled in, on every compiled-in device; a build of its own, as in `hybridnorm-core`.

use std::process::Command;

use burn::tensor::Device;
use hybridnorm_device::{DEVICES, DeviceRow, DeviceSpec};
use hybridnorm_testing::{apply, every_device};

/// A case without a trajectory: a software adapter takes minutes to compile and tune the kernels of each.
const CASE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/reference/dense_hybridnorm_star_b1t1"
);

#[apply(every_device!)]
fn a_device_is_certified_with_and_without_fusion(#[case] device: &Device) {
    let named = |row: &DeviceRow| row.name.parse::<DeviceSpec>().unwrap();
    let opens = |spec: &DeviceSpec| spec.open().is_ok_and(|opened| opened == *device);
    let spec = DEVICES
        .iter()
        .filter(|row| !row.addressed)
        .map(named)
        .find(opens)
        .unwrap();
    let verify = Command::new(env!("CARGO_BIN_EXE_hybridnorm-train"))
        .args(["verify", "--json", "--fusion", "both", "--device"])
        .arg(spec.to_string())
        .args(["--reference", CASE])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&verify.stderr);
    if !spec.row().compiles_kernels {
        assert_eq!(verify.status.code(), Some(2), "{told}");
        assert!(told.contains("--fusion"), "{told}");
        return;
    }
    assert_eq!(verify.status.code(), Some(0), "{told}");
    let report: serde_json::Value = serde_json::from_slice(&verify.stdout).unwrap();
    assert_eq!(report["certified"], true, "{report}");
    assert_eq!(report["fusion"], "on", "{report}");
    assert_eq!(report["without_fusion"]["fusion"], "off", "{report}");
    assert_eq!(report["without_fusion"]["certified"], true, "{report}");
}
