//! Every compiled-in device against the shipped reference, and proof that the comparison can fail.

use std::path::Path;

use burn::tensor::Device;
use hybridnorm_testing::devices;
use hybridnorm_train::verify::{self, Outcome, Report};

fn shipped() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/reference"))
}

fn verify(reference: &Path, device: &Device, name: &str) -> Report {
    verify::run(reference, device, name, |case| println!("{case}")).unwrap()
}

#[test]
fn every_device_computes_the_authors_numbers() {
    for (name, device) in devices() {
        let report = verify(shipped(), &device, name);
        assert_eq!(
            (report.passed, report.failed, report.unsupported),
            (8, 0, 0),
            "on {name}"
        );
    }
}

/// One weight moved by one part in a thousand is seen, and named.
#[test]
fn a_wrong_weight_is_found() {
    for (name, device) in devices() {
        let folder = tempfile::tempdir().unwrap();
        let case = folder.path().join("dense_star_multi");
        std::fs::create_dir(&case).unwrap();
        for entry in std::fs::read_dir(shipped().join("dense_star_multi")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), case.join(entry.file_name())).unwrap();
        }
        let path = case.join("weights.safetensors");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 4;
        let value = f32::from_le_bytes(bytes[last..].try_into().unwrap());
        bytes[last..].copy_from_slice(&(value * 1.001).to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        let report = verify(folder.path(), &device, name);
        assert_eq!(report.failed, 1);
        assert!(!report.cases[0].failures.is_empty());
    }
}

#[test]
fn unknown_and_broken_cases_are_reported() {
    let (name, device) = devices().remove(0);
    let folder = tempfile::tempdir().unwrap();
    for case in ["dense_empty", "hf_llama", "moe_x", "something_new"] {
        std::fs::create_dir(folder.path().join(case)).unwrap();
    }
    let report = verify(folder.path(), &device, name);
    assert_eq!(
        (report.passed, report.failed, report.unsupported),
        (0, 1, 3)
    );
    assert!(
        matches!(&report.cases[0].outcome, Outcome::Failed(reason) if reason.contains("case.json"))
    );
    let empty = tempfile::tempdir().unwrap();
    assert!(verify::run(empty.path(), &device, name, |_| {}).is_err());
}
