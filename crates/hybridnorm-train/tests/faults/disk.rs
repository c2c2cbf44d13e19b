//! Disks that are full, or can't be written to. A small tmpfs in a mount namespace of the test's own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::{RUN, assert_told, checkpoint, damages, inspect};
use crate::place::{Place, listing};

/// Runs `script` where `mount` is allowed and seen by nobody else; `None` where the system allows no such thing.
fn in_a_namespace(place: &Place, script: &str) -> Option<Output> {
    let shell = |script: &str| {
        Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .current_dir(place.path(""))
            .env("XDG_RUNTIME_DIR", place.path(""))
            .env("PROGRAM", env!("CARGO_BIN_EXE_hybridnorm-train"))
            .output()
    };
    fs::create_dir_all(place.path("disk")).unwrap();
    let allowed = shell("mount -t tmpfs none disk").is_ok_and(|output| output.status.success());
    if !allowed {
        eprintln!("NOT RUN: this system lets nobody but root mount a tmpfs");
        return None;
    }
    Some(shell(script).unwrap())
}

/// Disks of every size, from one that holds nothing to one that holds the whole run, so that each write is the first to fail on one of
/// them: what is on the disk then is whole, and goes on elsewhere.
#[test]
fn a_full_disk_at_any_write_leaves_what_was_written_before() {
    let place = Place::new();
    place.succeed(&format!("{RUN} --out whole"));
    let expected = checkpoint(&place.path("whole"), 6);
    let bytes: u64 = listing(&place.path("whole"))
        .iter()
        .map(|path| fs::metadata(path).unwrap().len().next_multiple_of(4096))
        .sum();
    let (mut full, mut succeeded) = (0, 0);
    // tmpfs counts in pages of 4 KiB.
    for pages in 1..=bytes / 4096 + 8 {
        let script = format!(
            "mount -t tmpfs -o size={}k none disk && $PROGRAM {RUN} --out disk/run; code=$?; cp -r disk kept; exit $code",
            4 * pages
        );
        let Some(output) = in_a_namespace(&place, &script) else {
            return;
        };
        if output.status.success() {
            succeeded += 1;
        } else {
            full += 1;
            assert_told(&output, 2, &["No space left on device", "disk/run"]);
        }
        let kept = place.path("kept/run");
        if kept.join("config.toml").exists() {
            let found = inspect(&place, "kept/run");
            assert!(
                damages(&found).iter().all(|(_, damage)| damage.is_none()),
                "{pages} pages: {found}"
            );
            place.succeed("--out kept/run --resume");
            assert!(checkpoint(&kept, 6) == expected, "{pages} pages");
        } else {
            // Nothing that a new run would trip over.
            assert!(!kept.join("checkpoints").exists(), "{pages} pages");
        }
        fs::remove_dir_all(place.path("kept")).unwrap();
        if succeeded == 2 {
            break;
        }
    }
    println!("{full} disks were full, {succeeded} were not");
    assert!(full > 10 && succeeded > 0, "{full} full, {succeeded} not");
}

/// A directory that turned read-only after a run: nothing can be resumed, and nothing is changed.
#[test]
fn a_read_only_directory_is_refused_in_one_line() {
    let place = Place::new();
    let script = format!(
        "mount -t tmpfs none disk && $PROGRAM {RUN} --steps 4 --out disk/run && mount -o remount,ro disk || exit 99; \
         $PROGRAM --out disk/run --resume --steps 6 --allow training.steps; code=$?; cp -r disk kept; exit $code"
    );
    let Some(output) = in_a_namespace(&place, &script) else {
        return;
    };
    assert_told(&output, 2, &["Read-only file system", "disk/run"]);
    let found = inspect(&place, "kept/run");
    assert_eq!(found["resumes_from"], 4, "{found}");

    let script =
        format!("mount -t tmpfs -o ro none disk || exit 99; $PROGRAM {RUN} --out disk/run");
    if let Some(output) = in_a_namespace(&place, &script) {
        assert_told(&output, 2, &["Read-only file system", "disk/run"]);
    }
    assert!(listing(Path::new(&place.path("disk"))).len() == 1);
}
