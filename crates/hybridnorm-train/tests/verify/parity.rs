//! Every compiled-in device against the shipped reference, and proof that the comparison can fail.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_testing::{any_device, apply, every_device};
use hybridnorm_train::verify::{self, Outcome, Report, Subject};

fn shipped() -> PathBuf {
    verify::shipped_reference().unwrap()
}

fn verify(reference: &Path, device: &Device) -> Report {
    let subject = Subject::new(format!("{device:?}"), device.clone());
    verify::run(reference, &subject, |case| println!("{case}")).unwrap()
}

#[apply(every_device!)]
fn every_device_computes_the_authors_numbers(#[case] device: &Device) {
    let report = verify(&shipped(), device);
    let cases = std::fs::read_dir(shipped()).unwrap();
    let cases = cases.filter(|case| case.as_ref().unwrap().path().is_dir());
    // And the presets, where there is another device to be held against.
    let subject = Subject::new(String::new(), device.clone());
    let presets = subject
        .yardstick
        .map_or(0, |_| verify::presets().unwrap().len());
    let expected = cases.count() + presets;
    assert_eq!(
        (report.passed, report.failed, report.unsupported),
        (expected, 0, 0)
    );
    assert!(report.certified && expected >= 8);
}

/// One weight moved by one part in a thousand is seen, and named.
#[apply(every_device!)]
fn a_wrong_weight_is_found(#[case] device: &Device) {
    find_wrong_weight("dense_star_multi", device);
}

#[test]
fn a_wrong_weight_of_a_sparse_model_is_found() {
    find_wrong_weight("moe_hybridnorm_star", &any_device());
}

fn find_wrong_weight(name: &str, device: &Device) {
    let folder = tempfile::tempdir().unwrap();
    let case = folder.path().join(name);
    std::fs::create_dir(&case).unwrap();
    for entry in std::fs::read_dir(shipped().join(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), case.join(entry.file_name())).unwrap();
    }
    let path = case.join("weights.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 4;
    let value = f32::from_le_bytes(bytes[last..].try_into().unwrap());
    bytes[last..].copy_from_slice(&(value * 1.001).to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    let report = verify(folder.path(), device);
    assert_eq!(report.failed, 1);
    assert!(!report.cases[0].failures.is_empty());
}

#[test]
fn unknown_and_broken_cases_are_reported() {
    let device = &any_device();
    let folder = tempfile::tempdir().unwrap();
    for case in ["dense_empty", "hf_other", "moe_x", "something_new"] {
        std::fs::create_dir(folder.path().join(case)).unwrap();
    }
    let model = folder.path().join("hf_other/model");
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.json"), r#"{"model_type": "gpt2"}"#).unwrap();
    let report = verify(folder.path(), device);
    assert_eq!(
        (report.passed, report.failed, report.unsupported),
        (0, 2, 2)
    );
    for (case, why) in [(0, "case.json"), (2, "case.json")] {
        let outcome = &report.cases[case].outcome;
        assert!(matches!(outcome, Outcome::Failed(reason) if reason.contains(why)));
    }
    let unsupported = &report.cases[1].outcome;
    assert!(
        matches!(unsupported, Outcome::Unsupported(reason) if reason.contains("model_type = gpt2"))
    );
    let empty = tempfile::tempdir().unwrap();
    let subject = Subject::new("any".to_string(), device.clone());
    assert!(verify::run(empty.path(), &subject, |_| {}).is_err());
}
