//! Prepared data that goes away or changes under a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rstest::rstest;

use super::{damages, inspect};
use crate::place::{Place, stderr};

/// Prepares documents about `what` into `shards`.
fn prepare(place: &Place, what: &str) {
    let document = |n: u64| format!("{{\"text\": \"The {what} of {n} is {}.\"}}\n", n * n);
    place.write("lines.jsonl", (0..300).map(document).collect::<String>());
    place.succeed("prepare lines.jsonl --out shards");
}

/// A run on shards that takes a minute.
fn begin(place: &Place) -> Child {
    prepare(place, "square");
    let args = "--config tiny.toml --data shards --eval-every 0 --steps 20000 --checkpoint-every 5 --out run";
    let child = place
        .command(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !place.path("run/checkpoints/step-10").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "no progress");
        sleep(Duration::from_millis(5));
    }
    child
}

fn tokens(place: &Place) -> PathBuf {
    place.path("shards/train-00000.tokens")
}

fn delete(file: &Path) {
    fs::remove_file(file).unwrap();
}

/// In place, as a careless tool would.
fn cut_short(file: &Path) {
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(7).unwrap();
}

/// A shard that is cut short under a run ends it in one line that names the file; one that is deleted is open, and read on. Either way
/// the checkpoints are whole, and a resumed run is refused before it touches anything.
#[rstest]
#[case::deleted(delete, false)]
#[case::cut_short(cut_short, true)]
fn a_shard_that_goes_away_ends_the_run_and_nothing_else(
    #[case] damage: fn(&Path),
    #[case] ends: bool,
) {
    let place = Place::new();
    let mut child = begin(&place);
    damage(&tokens(&place));
    if ends {
        let output = child.wait_with_output().unwrap();
        let message = stderr(&output);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{message}");
        assert!(!message.contains("panicked"), "{message}");
        let errors: Vec<&str> = message
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert!(
            errors.len() == 1 && errors[0].contains("train-00000.tokens"),
            "{message}"
        );
    } else {
        sleep(Duration::from_millis(300));
        assert!(
            child.try_wait().unwrap().is_none(),
            "an open file can be read"
        );
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let found = inspect(&place, "run");
    let stands = found["resumes_from"].as_u64().unwrap();
    assert!(stands >= 10, "{found}");
    assert!(
        damages(&found).iter().all(|(_, damage)| damage.is_none()),
        "{found}"
    );
    let again = place.run("--out run --resume");
    let message = stderr(&again);
    assert_eq!(again.status.code(), Some(2), "{message}");
    assert!(message.contains("train-00000.tokens"), "{message}");
    assert_eq!(inspect(&place, "run")["resumes_from"], stands);
}

/// Other data in the place of the run's: refused by its hash.
#[test]
fn other_shards_are_no_data_to_resume_on() {
    let place = Place::new();
    let mut child = begin(&place);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::rename(place.path("shards"), place.path("before")).unwrap();
    prepare(&place, "cube");
    super::assert_told(
        &place.run("--out run --resume"),
        2,
        &["the data is", "was started on"],
    );
}
