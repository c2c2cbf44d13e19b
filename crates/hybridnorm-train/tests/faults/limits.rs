//! Two processes in one directory, time that is up, changes that are allowed.

use std::fs;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{RUN, assert_told, checkpoint, inspect};
use crate::place::Place;

fn long_run(place: &Place) -> Child {
    let args = format!("{RUN} --steps 100000 --checkpoint-every 0 --out run");
    let child = place
        .command(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while !place.path("run/metrics.jsonl").exists() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never began");
        sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_second_run_in_one_directory_is_refused_and_the_first_goes_on() {
    let place = Place::new();
    let mut first = long_run(&place);
    assert_eq!(inspect(&place, "run")["in_use"], true);
    assert_told(&place.run("--out run --resume"), 2, &["run is in use"]);
    assert_told(
        &place.run(&format!("{RUN} --out run")),
        2,
        &["run already holds a run"],
    );
    assert!(first.try_wait().unwrap().is_none(), "the first has ended");
    first.kill().unwrap();
    first.wait().unwrap();
    // The system has released the lock of the killed process.
    assert_eq!(inspect(&place, "run")["in_use"], false);
}

#[test]
fn time_that_is_up_leaves_a_checkpoint_and_a_code_of_its_own() {
    let place = Place::new();
    let args = format!("{RUN} --steps 100000 --checkpoint-every 0 --out run --max-time 500ms");
    assert_told(
        &place.run(&args),
        3,
        &["time is up after step", "--out run --resume"],
    );
    let found = inspect(&place, "run");
    assert!(found["resumes_from"].as_u64().unwrap() > 0, "{found}");
    // And goes on from there, for as long again.
    let again = place.run("--out run --resume --max-time 300ms");
    assert_told(&again, 3, &["time is up"]);
}

#[test]
fn a_change_of_the_mathematics_has_to_be_allowed_by_name() {
    let place = Place::new();
    place.succeed(&format!("{RUN} --out run"));
    let longer = "--out run --resume --steps 8";
    assert_told(
        &place.run(longer),
        2,
        &["training.steps is 8 now", "--allow training.steps"],
    );
    let other = place.run(&format!("{longer} --allow schedule.lr"));
    assert_told(
        &other,
        2,
        &["--allow schedule.lr", "what it was", "training.steps"],
    );
    assert_told(
        &place.run("--out run --allow schedule.lr"),
        2,
        &["--resume"],
    );
    place.succeed(&format!("{longer} --allow training.steps"));
    let log = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let change = log
        .lines()
        .find(|line| line.contains("\"kind\":\"change\""))
        .unwrap();
    for part in [
        "\"step\":6",
        "training.steps",
        "\"from\":\"6\"",
        "\"to\":\"8\"",
    ] {
        assert!(change.contains(part), "{change}");
    }
    assert_eq!(checkpoint(&place.path("run"), 8).len(), 2);
}

/// The newest two, the best, and one in every twenty tokens' worth.
#[test]
fn checkpoints_are_retired_as_configured() {
    let place = Place::new();
    // A step is 32 tokens.
    place.succeed(
        "--config tiny.toml --steps 20 --eval-every 1 --checkpoint-every 1 --keep 2 --keep-every \"320 tokens\" --out run"
            .replace("\"320 tokens\"", "320tokens")
            .as_str(),
    );
    let found = inspect(&place, "run");
    let kept: Vec<u64> = super::damages(&found)
        .into_iter()
        .map(|(step, _)| step)
        .collect();
    let log = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let records = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    // The evaluation at the end sees other text, and its checkpoint is kept in any case.
    let scores = records
        .filter(|record| record["kind"] == "evaluation")
        .map(|record| {
            let bits = record["bits_per_byte"].as_f64().unwrap();
            (bits, record["step"].as_u64().unwrap())
        });
    let best = scores.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1;
    let mut expected = vec![10, 19, 20, best];
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(kept, expected, "best {best}");
}
