//! Files of a checkpoint that are not what was written.

use std::fs;
use std::path::Path;

use rstest::rstest;

use super::{FILES, RUN, checkpoint, copy, damages, inspect};
use crate::place::{Place, stderr};

/// Does something to the run's newest checkpoint; `file` is one of its files.
type Damage = fn(run: &Path, file: &str);

fn file_of(run: &Path, step: u64, file: &str) -> std::path::PathBuf {
    run.join(format!("checkpoints/step-{step}/{file}"))
}

fn truncate(run: &Path, file: &str) {
    let path = file_of(run, 6, file);
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..bytes.len() - 2]).unwrap();
}

fn flip_a_bit(run: &Path, file: &str) {
    let path = file_of(run, 6, file);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 16;
    fs::write(path, bytes).unwrap();
}

fn empty(run: &Path, file: &str) {
    fs::write(file_of(run, 6, file), []).unwrap();
}

fn delete(run: &Path, file: &str) {
    fs::remove_file(file_of(run, 6, file)).unwrap();
}

/// That of the checkpoint before, in its place.
fn swap_with_the_one_before(run: &Path, file: &str) {
    fs::copy(file_of(run, 4, file), file_of(run, 6, file)).unwrap();
}

/// A folder in its place.
fn replace_by_a_folder(run: &Path, file: &str) {
    delete(run, file);
    fs::create_dir(file_of(run, 6, file)).unwrap();
}

/// Every damage to every file is named by `inspect`, skipped by `--resume`, and changes nothing of the end.
#[rstest]
#[case::truncated(truncate, false)]
#[case::flipped(flip_a_bit, false)]
#[case::zero_length(empty, false)]
#[case::deleted(delete, false)]
#[case::swapped(swap_with_the_one_before, true)]
#[case::folder(replace_by_a_folder, false)]
fn a_damaged_file_is_named_and_its_checkpoint_skipped(#[case] damage: Damage, #[case] swaps: bool) {
    let place = Place::new();
    place.succeed(&format!("{RUN} --out whole"));
    let whole = place.path("whole");
    let expected = checkpoint(&whole, 6);
    for file in [
        FILES[0],
        FILES[1],
        "state.json",
        "config.toml",
        "manifest.json",
    ] {
        // Of these, all checkpoints of a run hold the same.
        if swaps && file == "config.toml" {
            continue;
        }
        let run = place.path("run");
        copy(&whole, &run);
        damage(&run, file);
        let output = place.run("inspect run");
        let page = String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{page}");
        assert!(page.contains("DAMAGED   step-6"), "{file}: {page}");
        assert!(page.contains("resume    from step 4"), "{file}: {page}");
        let found = damages(&inspect(&place, "run"));
        let named = found[2].1.as_deref().unwrap();
        // A manifest of the checkpoint before accuses the files it does not describe.
        let accuses = swaps && file == "manifest.json";
        assert!(named.contains(file) || accuses, "{file}: {named}");
        assert!(found[0].1.is_none() && found[1].1.is_none(), "{found:?}");

        let output = place.run("--out run --resume");
        let told = stderr(&output);
        assert!(output.status.success(), "{told}");
        assert!(
            told.contains("step-4") && told.contains("skipped"),
            "{told}"
        );
        assert!(checkpoint(&run, 6) == expected, "{file}");
        fs::remove_dir_all(run).unwrap();
    }
}

/// A whole checkpoint under the name of another.
#[test]
fn swapped_checkpoints_are_found_out() {
    let place = Place::new();
    place.succeed(&format!("{RUN} --out run"));
    let folder = |step: u64| place.path(&format!("run/checkpoints/step-{step}"));
    fs::rename(folder(4), folder(7)).unwrap();
    fs::rename(folder(6), folder(4)).unwrap();
    fs::rename(folder(7), folder(6)).unwrap();
    let found = damages(&inspect(&place, "run"));
    assert!(found[0].1.is_none(), "{found:?}");
    for (step, damage) in &found[1..] {
        let damage = damage.as_deref().unwrap();
        assert!(damage.contains(&format!("not {step}")), "{damage}");
    }
}

/// Where no checkpoint is whole, nothing is restarted in silence.
#[test]
fn a_run_with_no_whole_checkpoint_is_refused() {
    let place = Place::new();
    place.succeed(&format!("{RUN} --out run"));
    for step in [2, 4, 6] {
        fs::write(
            place.path(&format!("run/checkpoints/step-{step}/{}", FILES[0])),
            [],
        )
        .unwrap();
    }
    let page = place.run("inspect run");
    assert!(
        String::from_utf8(page.stdout)
            .unwrap()
            .contains("no checkpoint is whole")
    );
    super::assert_told(
        &place.run("--out run --resume"),
        2,
        &["none of the 3 checkpoints", "step-6"],
    );
}
