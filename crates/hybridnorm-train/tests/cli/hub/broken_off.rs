//! Downloads that break off or bring something else.

use std::fs;

use hybridnorm_train::hub::{HubError, Want};

use super::mirror::Mirror;

#[test]
fn a_download_that_breaks_off_goes_on_from_there() {
    let mirror = Mirror::new();
    mirror.change(|state| state.cuts = vec![50_000, 100_000]);
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
    let expected = [
        None,
        Some("bytes=100000-".to_string()),
        Some("bytes=150000-".to_string()),
    ];
    assert_eq!(mirror.ranges(), expected);
}

#[test]
fn so_does_one_that_was_given_up() {
    let mirror = Mirror::new();
    // The first brings something, five bring nothing.
    mirror.change(|state| state.cuts = vec![0, 0, 0, 0, 0, 70_000]);
    let error = mirror.fetch("hf:org/tiny", Want::Model).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::BrokenOff {
                got: 70_000,
                size: 300_000,
                ..
            }
        ),
        "{error}"
    );
    mirror.change(|state| state.cuts.clear());
    mirror.ranges();
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(mirror.ranges(), [Some("bytes=70000-".to_string())]);
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
}

#[test]
fn a_server_that_cannot_skip_sends_all_again() {
    let mirror = Mirror::new();
    mirror.change(|state| {
        state.cuts = vec![90_000];
        state.ignores_ranges = true;
    });
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
}

#[test]
fn what_is_not_what_was_announced_is_removed() {
    let mirror = Mirror::new();
    mirror.change(|state| state.forged = Some(vec![7; 300_000]));
    let error = mirror.fetch("hf:org/tiny", Want::Model).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    mirror.change(|state| state.forged = None);
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
}
