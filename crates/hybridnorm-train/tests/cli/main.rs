//! The program as a user meets it: what it refuses, and a tiny run from beginning to end.

mod bench;
mod browser;
mod compare;
mod devices;
mod eval;
mod export;
mod generate;
#[cfg(feature = "hub")]
mod hub;
mod import;
mod place;
mod prepared;
mod probe;
mod report;
mod sparse;
mod web;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use place::{Place, stderr};
use rstest::rstest;
use serde_json::Value;

#[rstest]
#[case::placement("--placement hybird-star", &["placement", "hybird-star", "did you mean \"hybrid-star\"?"])]
#[case::preset("--preset dmeo", &["preset", "dmeo", "did you mean \"demo\"?"])]
#[case::sparse_preset("--preset moe-dmeo", &["preset", "moe-dmeo", "did you mean \"moe-demo\"?", "151m"])]
#[case::init("--init megatorn", &["init", "megatorn", "did you mean \"megatron\"?"])]
#[case::device("--device felx", &["device", "felx", "did you mean \"flex\"?"])]
#[case::optimizer("--optimizer moun", &["optimizer", "moun", "did you mean \"muon\"?"])]
#[case::schedule("--schedule linaer", &["schedule.shape", "linaer", "did you mean \"linear\"?", "wsd"])]
#[case::tui("--config tiny.toml --tui", if cfg!(feature = "tui") { &["--tui", "terminal"] } else { &["--tui", "--features tui"] })]
#[case::devices_that_do_not_divide("--config tiny.toml --devices flex,flex,flex", &["devices = 3", "divisor", "batch of 2"])]
#[case::devices_with_too_large_micro_batches("--config tiny.toml --devices flex,flex --micro-batch 2", &["devices = 2", "micro_batch = 2"])]
#[case::remote_without_address("--device remote", &["remote:HOST:PORT"])]
#[case::flag("--stesp 3", &["--stesp", "--steps"])]
#[case::flag_value("--steps three", &["three", "--steps"])]
#[case::data_missing("--data nowhere.txt", &["nowhere.txt", "does not exist"])]
#[case::data_empty("--data empty.txt", &["empty.txt", "no text"])]
#[case::data_not_utf8("--data latin1.txt", &["latin1.txt", "UTF-8", "byte 3"])]
#[case::data_not_json("--data bad.jsonl", &["bad.jsonl:2", "text"])]
#[case::data_short("--data short.txt", &["training split has 134 tokens", "seq + 1 = 257", "--seq"])]
#[case::tokenizer("--tokenizer words", &["tokenizer", "words", "byte", "tokenizer.json"])]
#[case::config_missing("--config nowhere.toml", &["nowhere.toml", "read"])]
#[case::config_unknown_field("--config unknown.toml", &["unknown.toml:6", "stepz", "steps"])]
#[case::config_not_toml("--config text.md", &["text.md:1"])]
#[case::heads("--config heads.toml", &["n_heads", "3", "divisor of d_model = 16"])]
#[case::micro_batch("--batch 8 --micro-batch 3", &["micro_batch", "3", "divisor"])]
#[case::zero_steps("--steps 0", &["steps", "at least 1"])]
#[case::rate("--lr -1", &["lr", "-1"])]
#[case::vocabulary("--config vocabulary.toml", &["model.vocab_size", "100", "257"])]
#[case::existing_run("--out full", &["full", "--resume"])]
#[case::unwritable("--config tiny.toml --out text.md/run", &["text.md/run"])]
#[case::nothing_to_resume("--resume --out nowhere", &["nowhere", "holds no run"])]
#[case::nothing_to_resume_by_default("--resume", &["runs/demo-hybrid-star", "holds no run"])]
#[case::generate_without_run("generate --run nowhere", &["nowhere", "config.toml"])]
#[case::generate_temperature("generate --run nowhere --temperature -1", &["temperature", "at least 0"])]
fn a_mistake_is_refused_in_one_line(#[case] args: &str, #[case] words: &[&str]) {
    let place = Place::new();
    place.write("empty.txt", "");
    place.write("short.txt", "Hello, world. ".repeat(10));
    place.write("latin1.txt", b"caf\xe9");
    place.write("bad.jsonl", "{\"text\": \"a\"}\nnot json\n");
    place.write_variant("unknown.toml", "steps", "stepz");
    place.write_variant("heads.toml", "n_heads = 2", "n_heads = 3");
    place.write_variant("vocabulary.toml", "vocab_size = 257", "vocab_size = 100");
    fs::create_dir(place.path("full")).unwrap();
    place.write("full/notes.txt", "mine");
    let message = place.refuse(args);
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

/// 2^24 sequences at once, of which no machine holds the activations.
#[test]
fn a_run_that_cannot_fit_is_refused_with_what_would() {
    let place = Place::new();
    let args = "--config tiny.toml --batch 16777216 --micro-batch 16777216 --device flex";
    for command in ["plan", "train"] {
        let message = place.refuse(&format!("{command} {args} --out run"));
        for words in [
            "this run needs about",
            "flex has",
            "--micro-batch",
            "would fit",
        ] {
            assert!(message.contains(words), "no {words:?} in: {message}");
        }
    }
    assert!(!place.path("run").exists());
    let plan = place.succeed(&format!("plan {args} --ignore-memory"));
    for words in [
        "memory    about",
        "activations",
        "optimiser state",
        "is what flex has",
    ] {
        assert!(plan.contains(words), "no {words:?} in:\n{plan}");
    }
}

/// What looks at every layer cost, and what comes next; a look takes what its two sequences of two do.
#[test]
fn a_plan_says_what_looks_cost_and_how_to_begin() {
    let place = Place::new();
    let plan = |flags: &str| {
        let plan = place.succeed(&format!("plan --config tiny.toml --device flex {flags}"));
        assert!(plan.ends_with("prints its whole configuration, for --config\n"));
        plan
    };
    assert!(!plan("").contains("looking at every layer"));
    let often = plan("--diagnostics 1");
    for words in [
        "every layer every step, on 2 sequences: about 100.0 % of the time",
        "warning   looking at every layer takes about 100 % of the time: with --diagnostics 50 or more",
    ] {
        assert!(often.contains(words), "no {words:?} in:\n{often}");
    }
    let seldom = plan("--steps 1000 --diagnostics 100");
    assert!(seldom.contains("about 1.1 % of the time"), "{seldom}");
    assert!(!seldom.contains("looking at every layer"), "{seldom}");
}

#[test]
fn a_device_that_is_not_compiled_in_names_its_feature() {
    let place = Place::new();
    for row in hybridnorm_train::device::DEVICES {
        if !row.is_compiled_in() {
            let address = if row.addressed { ":127.0.0.1:3000" } else { "" };
            let device = format!("--device {}{address}", row.name);
            let message = place.refuse(&format!("--config tiny.toml {device}"));
            assert!(
                message.contains(&format!("--features {}", row.name)),
                "{message}"
            );
        }
    }
}

#[test]
fn a_run_from_beginning_to_end() {
    let place = Place::new();
    let out = place.succeed("--config tiny.toml --out run");
    for words in [
        "hybrid-star",
        "layer 0: Y = X + Attn_QKV(N(X))",
        "6 steps of 2 x 16 tokens",
        "validation loss",
        "this model",
        "bigram",
        "sample, continuing",
        "tokens/s",
    ] {
        assert!(out.contains(words), "no {words:?} in:\n{out}");
    }
    for file in ["config.toml", "metrics.jsonl", "summary.json"] {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    for step in [2, 4, 6] {
        assert!(place.path(&format!("run/checkpoints/step-{step}")).is_dir());
    }
    let summary = fs::read_to_string(place.path("run/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["steps"], 6);
    assert!(summary["bits_per_byte"]["model"].as_f64().unwrap() > 0.0);

    // Greedy text does not depend on the seed, sampled text on nothing else.
    let generate = |flags: &str| {
        place.succeed(&format!(
            "generate --run run --prompt The --tokens 40 {flags}"
        ))
    };
    let greedy = generate("--temperature 0 --seed 1");
    assert!(greedy.starts_with("The"));
    assert_eq!(greedy, generate("--temperature 0 --seed 2"));
    assert_eq!(generate("--seed 1"), generate("--seed 1"));

    // The directory now holds a run, and a run that is done has nothing left to do.
    assert!(
        place
            .refuse("--config tiny.toml --out run")
            .contains("--resume")
    );
    place.succeed("--out run --resume");
    // Whatever would change what is computed is refused.
    let message = place.refuse("--out run --resume --lr 0.5");
    assert!(message.contains("schedule.lr"), "{message}");
}

#[test]
fn a_plan_can_be_trained() {
    let place = Place::new();
    let toml = place.succeed("plan --config tiny.toml --placement pre --steps 2 --toml");
    place.write("plan.toml", &toml);
    assert_eq!(toml, place.succeed("plan --config plan.toml --toml"));
    assert!(!place.path("runs").exists(), "a plan writes nothing");
    place.succeed("train --config plan.toml");
    let stored = fs::read_to_string(place.path("runs/plan/config.toml")).unwrap();
    assert_eq!(stored, toml);
    // A second run without --out gets a directory of its own.
    place.succeed("train --config plan.toml");
    assert!(place.path("runs/plan-2/summary.json").is_file());
}

/// A whole trajectory with the fast paths and without them: the same losses up to rounding, and not the same bits, so that the switch is
/// known to do something.
#[test]
fn fast_paths_change_nothing_but_roundings() {
    let place = Place::new();
    for config in ["tiny.toml", "sparse.toml"] {
        let train = format!("--config {config} --device flex --steps 30 --eval-every 0");
        place.succeed(&format!("{train} --out fast-{config}"));
        place.succeed(&format!("{train} --out plain-{config} --reference-ops"));
        let [fast, plain] = ["fast", "plain"].map(|kind| {
            let log =
                fs::read_to_string(place.path(&format!("{kind}-{config}/metrics.jsonl"))).unwrap();
            let records = log
                .lines()
                .map(|line| -> Value { serde_json::from_str(line).unwrap() });
            let losses = records.filter_map(|record| record["loss"].as_f64());
            losses.collect::<Vec<_>>()
        });
        assert_eq!(fast.len(), 30);
        let pairs = fast.iter().zip(&plain);
        let worst = pairs.fold(0f64, |worst, (a, b)| worst.max((a / b - 1.0).abs()));
        assert!(worst > 0.0 && worst < 1e-4, "{config}: {worst:e}");
    }
}

#[test]
fn utilization_and_tensorboard_are_there_when_asked_for() {
    let place = Place::new();
    let out = place.succeed("--config tiny.toml --out run --tensorboard");
    assert!(out.contains(" GFLOP a token; the device does "), "{out}");
    let log = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let step: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(step["mfu"].as_f64().unwrap() > 0.0, "{step}");
    assert!(step["peak_tflops"].as_f64().unwrap() > 0.0, "{step}");
    let files = |run: &str| fs::read_dir(place.path(run).join("tensorboard")).map(Iterator::count);
    assert_eq!(files("run").unwrap(), 1);
    place.succeed("--config tiny.toml --out plain");
    assert!(files("plain").is_err());
}

#[test]
fn a_rival_recipe_is_planned_trained_and_resumed() {
    let place = Place::new();
    let flags = "--config tiny.toml --optimizer muon --schedule wsd";
    let plan = place.succeed(&format!("plan {flags}"));
    for words in [
        "Muon(0.95 Nesterov, 5 rounds, rms-match) for the blocks' matrices, AdamW(0.9, 0.95) for the rest",
        "wsd: up to 1e-2 over 9 tokens, then constant, down to 1e-3 (1-sqrt) in the last 0.2 of the run",
    ] {
        assert!(plan.contains(words), "no {words:?} in:\n{plan}");
    }
    place.succeed(&format!("{flags} --out run"));
    let stored = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(stored.contains("newton_schulz_steps = 5"), "{stored}");
    place.succeed("--out run --resume");
    let message = place.refuse("--out run --resume --optimizer adamw");
    assert!(message.contains("optimizer.muon"), "{message}");
}

#[test]
fn a_checkpoint_of_another_shape_is_refused() {
    let place = Place::new();
    place.succeed("--config tiny.toml --out run");
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    place.write("run/config.toml", config.replace("d_ff = 32", "d_ff = 48"));
    for args in ["--out run --resume", "generate --run run"] {
        let message = stderr(&place.run(args));
        assert!(message.contains("feed_forward"), "{args}: {message}");
        assert_eq!(place.run(args).status.code(), Some(2), "{message}");
    }
}

#[test]
fn a_reader_who_leaves_is_no_error() {
    let place = Place::new();
    place.succeed("--config tiny.toml --out run");
    for args in ["placements", "generate --run run --tokens 2000"] {
        let mut child = place
            .command(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{args}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_with_a_checkpoint() {
    let place = Place::new();
    let args = "--config tiny.toml --out run --steps 100000 --checkpoint-every 0 --eval-every 0";
    let child = start(&place, args);
    wait_for_steps(&place.path("run"), 3);
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(130), "{message}");
    assert!(message.contains("--out run --resume"), "{message}");
    let checkpoints = fs::read_dir(place.path("run/checkpoints")).unwrap();
    assert_eq!(checkpoints.count(), 1);
}

/// A finished run that is resumed says so and keeps its results; damage in the newest checkpoint is told.
#[test]
fn a_finished_run_keeps_its_summary() {
    let place = Place::new();
    place.succeed("--config tiny.toml --out run");
    let summary = || fs::read(place.path("run/summary.json")).unwrap();
    let before = summary();
    let out = place.succeed("--out run --resume");
    assert!(out.contains("all 6 steps were done already"), "{out}");
    assert!(before == summary());

    let newest = place.path("run/checkpoints/step-6/model.safetensors");
    let mut bytes = fs::read(&newest).unwrap();
    bytes.push(0);
    fs::write(&newest, bytes).unwrap();
    let output = place
        .command("generate --run run --prompt The --tokens 4")
        .output()
        .unwrap();
    assert!(output.status.success());
    let told = stderr(&output);
    assert!(
        told.contains("skipped") && told.contains("step-6"),
        "{told}"
    );
}

/// Killed five times, wherever it happens to be, and resumed each time: the bytes of a run left alone.
#[cfg(unix)]
#[test]
fn a_killed_run_ends_in_the_same_bytes() {
    let place = Place::new();
    let args = "--config tiny.toml --steps 300 --checkpoint-every 3 --eval-every 0";
    place.succeed(&format!("{args} --out whole"));
    for kill in 1..=5 {
        let args = match kill {
            1 => format!("{args} --out killed"),
            _ => "--out killed --resume".to_string(),
        };
        let mut child = start(&place, &args);
        wait_for_steps(&place.path("killed"), 40 * kill);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!place.path("killed/checkpoints/step-300").exists());
    }
    place.succeed("--out killed --resume");
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let [whole, killed] = ["whole", "killed"].map(|run| {
            fs::read(place.path(&format!("{run}/checkpoints/step-300/{file}"))).unwrap()
        });
        assert!(whole == killed, "{file} differs");
    }
    let [whole, killed] = ["whole", "killed"].map(|run| losses(&place.path(run)));
    assert_eq!(whole, killed);
}

/// Step and loss of every logged step, as written.
#[cfg(unix)]
fn losses(run: &Path) -> Vec<(String, String)> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let records = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps = records.filter(|record| record["kind"] == "step");
    steps
        .map(|step| (step["step"].to_string(), step["loss"].to_string()))
        .collect()
}

#[cfg(unix)]
fn start(place: &Place, args: &str) -> Child {
    place
        .command(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let status = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(status.unwrap().success());
}

/// Waits until a run has logged `steps` steps.
#[cfg(unix)]
fn wait_for_steps(run: &Path, steps: usize) {
    let started = Instant::now();
    loop {
        let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        if log.lines().count() >= steps {
            return;
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "no progress: {log}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
