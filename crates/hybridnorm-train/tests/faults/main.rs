//! What can happen to a run on a real machine, done to the program itself: kills, damaged files, full and read-only disks, a second
//! process. After each, no panic, one clear line, the newest whole checkpoint as it was, and a resumed run that ends in the bytes of
//! one that nothing happened to. `docs/reliability.md` has the table.
#![cfg(unix)]

mod damage;
mod disk;
mod kill;
mod limits;
mod shards;
// Shared with the tests of the command line, which use all of it.
#[allow(dead_code)]
#[path = "../cli/place.rs"]
mod place;

use std::fs;
use std::path::Path;
use std::process::Output;

use place::{Place, stderr};
use serde_json::Value;

/// Checkpoints after steps 2, 4 and 6 of 6.
const RUN: &str = "--config tiny.toml --eval-every 0";
/// What a checkpoint holds that must not differ.
const FILES: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];

/// A failure as a user has to see it: one line that says `words`, and no panic.
fn assert_told(output: &Output, code: i32, words: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{message}");
    assert!(!message.contains("panicked"), "{message}");
    let errors: Vec<&str> = message
        .lines()
        .filter(|line| line.starts_with("error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{message}");
    for words in words {
        assert!(errors[0].contains(words), "no {words:?} in: {message}");
    }
}

/// What `inspect` says of a run.
fn inspect(place: &Place, run: &str) -> Value {
    let output = place.run(&format!("inspect {run} --json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)))
}

/// The damage of every checkpoint by step.
fn damages(inspection: &Value) -> Vec<(u64, Option<String>)> {
    let generations = inspection["generations"].as_array().unwrap();
    let damage = |generation: &Value| {
        let damage = generation["damage"].as_str().map(str::to_string);
        (generation["step"].as_u64().unwrap(), damage)
    };
    generations.iter().map(damage).collect()
}

/// The bytes that make up a checkpoint.
fn checkpoint(run: &Path, step: u64) -> [Vec<u8>; 2] {
    FILES.map(|file| fs::read(run.join(format!("checkpoints/step-{step}/{file}"))).unwrap())
}

/// A copy of a run, to do something to.
fn copy(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(from).unwrap());
        if entry.file_type().is_dir() {
            fs::create_dir_all(&target).unwrap();
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}
