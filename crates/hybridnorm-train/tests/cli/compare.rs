//! `compare`: what it refuses, what it leaves behind, and that it goes on where it was stopped.

use std::fs;
use std::process::Stdio;

use rstest::rstest;
use serde_json::Value;

use crate::place::{Place, stderr};

const TWO: &str = "compare --config tiny.toml --device flex --placements pre,hybrid";

fn comparison(place: &Place, dir: &str) -> Value {
    let text = fs::read_to_string(place.path(dir).join("compare.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[rstest]
#[case::placement("--placement pre", &["--placement", "--placements"])]
#[case::resume("--resume", &["--resume"])]
#[case::devices("--devices flex,flex", &["--devices", "--device NAME,NAME"])]
#[case::unknown("--placements pre,hybird", &["hybird", "did you mean \"hybrid\"?"])]
#[case::twice("--placements pre,pre", &["placements", "pre", "each once"])]
#[case::baseline("--placements pre,hybrid --baseline post", &["baseline", "post", "pre"])]
#[case::init("--init megatorn", &["megatorn", "did you mean \"megatron\"?", "own, common, both"])]
#[case::inits("--init own --inits normal", &["--init", "--inits"])]
#[case::rates("--lr 1e-3 --learning-rates 1e-3,2e-3", &["--lr", "--learning-rates"])]
#[case::rate("--learning-rates 1e-3,-1", &["schedule.lr", "-1"])]
#[case::depth("--depths 0", &["n_layers", "0"])]
#[case::seeds("--seeds 0", &["--seeds", "0"])]
#[case::contrast("--contrast placment", &["placment", "did you mean \"placement\"?"])]
#[case::device("--device flex,felx", &["felx", "did you mean \"flex\"?"])]
#[case::taken("--out full", &["full", "something else"])]
#[case::memory("--placements pre --batch 16777216 --micro-batch 16777216", &["flex has", "would fit"])]
fn a_mistake_is_refused_in_one_line(#[case] flags: &str, #[case] words: &[&str]) {
    let place = Place::new();
    fs::create_dir(place.path("full")).unwrap();
    place.write("full/notes.txt", "mine");
    let message = place.refuse(&format!("compare --config tiny.toml {flags}"));
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

/// Without a word on what arms differ in, the configured placement stands beside Pre-Norm.
#[rstest]
#[case::nothing("", &["placement: 2 arms, each beside pre", "          hybrid-star "])]
#[case::rates("--learning-rates 1e-3,2e-3", &["learning-rate: 2 arms", "          hybrid-star+lr=0.001 "])]
fn two_placements_are_compared_by_default(#[case] flags: &str, #[case] words: &[&str]) {
    let place = Place::new();
    let plan = place.succeed(&format!(
        "compare --config tiny.toml --device flex --plan {flags}"
    ));
    for word in words {
        assert!(plan.contains(word), "no {word:?} in: {plan}");
    }
}

#[test]
fn a_comparison_from_beginning_to_end() {
    let place = Place::new();
    let command = format!("{TWO} --out out --seeds 3 --init both");
    let plan = place.succeed(&format!("{command} --plan"));
    for words in ["9, 0 of them done", "memory    about", "time      about"] {
        assert!(plan.contains(words), "no {words:?} in:\n{plan}");
    }
    assert!(!place.path("out").exists());

    let out = place.succeed(&command);
    for words in [
        "time      about",
        "All with normal initialisation, beside pre",
        "hybrid+normal",
    ] {
        assert!(out.contains(words), "no {words:?} in:\n{out}");
    }
    let found = comparison(&place, "out");
    let answer = found["answer"].as_str().unwrap();
    assert_eq!(out.matches(answer).count(), 1, "{out}");
    assert_eq!(found["arms"].as_array().unwrap().len(), 3);
    // The difference is that of the two runs with the same seed, each of which says the same in its own log.
    let row = &found["views"][0]["rows"][1];
    assert_eq!(row["arm"], "hybrid");
    let last = |arm: &str, seed: &Value| {
        let log = place.path(&format!("out/runs/{arm}/seed-{seed}/metrics.jsonl"));
        let text = fs::read_to_string(log).unwrap();
        let line: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        line["nats_per_token"].as_f64().unwrap()
    };
    let pairs = row["differences"].as_array().unwrap();
    assert_eq!(pairs.len(), 3);
    for pair in pairs {
        let expected = last("hybrid", &pair[0]) - last("pre", &pair[0]);
        assert!((pair[1].as_f64().unwrap() - expected).abs() < 1e-12);
    }

    // Nothing is run a second time, and nothing else can be run in its place.
    let before = fs::read(place.path("out/compare.json")).unwrap();
    let again = place.succeed(&command);
    assert!(
        again.contains("9, 9 of them done") && again.contains(answer),
        "{again}"
    );
    assert_eq!(fs::read(place.path("out/compare.json")).unwrap(), before);
    let message = place.refuse(&format!("{command} --steps 5"));
    for word in ["out/runs/pre/seed-6198", "training.steps is 5 now", "6"] {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
    place.write("text.md", "Another text. ".repeat(300));
    let message = place.refuse(&command);
    assert!(message.contains("the data is"), "{message}");
}

/// One seed concludes nothing, and the output says so.
#[test]
fn few_seeds_conclude_nothing() {
    let place = Place::new();
    let out = place.succeed(&format!("{TWO} --out out --seeds 1"));
    assert!(
        out.contains("neither that there is one, nor that there is none"),
        "{out}"
    );
    let found = comparison(&place, "out");
    assert_eq!(found["views"][0]["rows"][1]["verdict"], "too_few_seeds");
}

/// At an absurd rate the runs go wrong, each in its way, and the comparison says so and succeeds.
#[test]
fn divergence_is_a_result() {
    let place = Place::new();
    let rates = "--learning-rates 0.01,1e30 --steps 40";
    let out = place.succeed(&format!(
        "compare --config tiny.toml --device flex --placements pre --seeds 3 --out out {rates}"
    ));
    assert!(out.contains("diverged"), "{out}");
    let found = comparison(&place, "out");
    let row = &found["views"][0]["rows"][1];
    assert_eq!(row["verdict"], "diverged", "{row}");
    assert!(
        row["note"]
            .as_str()
            .unwrap()
            .contains("3 of 3 runs diverged"),
        "{row}"
    );
}

/// Killed in the middle, it goes on from the checkpoints, to the same bits.
#[cfg(unix)]
#[test]
fn a_killed_comparison_goes_on() {
    let place = Place::new();
    let command = format!("{TWO} --seeds 2 --steps 120 --checkpoint-every 20 --eval-every 0");
    place.succeed(&format!("{command} --out whole"));
    let mut child = place
        .command(&format!("{command} --out cut"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // In the second of four runs.
    crate::wait_for_steps(&place.path("cut/runs/hybrid/seed-6198"), 30);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !place
            .path("cut/runs/hybrid/seed-6198/outcome.json")
            .exists(),
        "it was over too soon"
    );

    let output = place.run(&format!("{command} --out cut"));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("resuming from"),
        "{}",
        stderr(&output)
    );
    let weights = |dir: &str, arm: &str| {
        let checkpoint = place.path(&format!("{dir}/runs/{arm}/seed-6198/checkpoints/step-120"));
        fs::read(checkpoint.join("model.safetensors")).unwrap()
    };
    for arm in ["pre", "hybrid"] {
        assert!(weights("cut", arm) == weights("whole", arm), "{arm}");
    }
    let without_times = |dir: &str| {
        let mut found = comparison(&place, dir);
        for arm in found["arms"].as_array_mut().unwrap() {
            for run in arm["runs"].as_array_mut().unwrap() {
                for field in ["elapsed_s", "tokens_per_s"] {
                    run["outcome"][field] = Value::Null;
                }
            }
        }
        found
    };
    assert_eq!(without_times("cut"), without_times("whole"));
}
