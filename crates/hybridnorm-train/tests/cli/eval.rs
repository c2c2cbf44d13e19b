//! `eval`: beside what transformers computes, and what it refuses.

use std::fs;

use hybridnorm_testing::{apply, every_device_name};
use rstest::rstest;
use serde_json::{Value, json};

use super::generate::{TINY_MIXTRAL, recorded};
use super::place::{Place, stderr};

pub const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// What `eval --json` prints.
fn eval(place: &Place, args: &str) -> Value {
    eval_on("flex", place, args)
}

fn eval_on(device: &str, place: &Place, args: &str) -> Value {
    let out = place.succeed(&format!("eval --json --device {device} {args}"));
    serde_json::from_str(&out).unwrap()
}

fn close(found: &Value, expected: &Value, what: &str) {
    let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
    assert!(
        (found - expected).abs() < 1e-4,
        "{what}: {found}, not {expected}"
    );
}

/// Perplexity in windows that do not overlap, that do, and that nearly stand still (`tests/data/make.py`).
#[apply(every_device_name!)]
fn texts_cost_what_transformers_says(#[case] device: &str) {
    let place = Place::new();
    for (stride, expected) in recorded()["evaluation"]["texts"].as_object().unwrap() {
        for batch in [1, 8] {
            let args = format!(
                "--model {TINY_MIXTRAL} --text {DATA}/texts.jsonl --stride {stride} --batch {batch}"
            );
            let found = &eval_on(device, &place, &args)["texts"][0];
            for count in ["tokens", "bytes"] {
                assert_eq!(found[count], expected[count]);
            }
            assert_eq!(
                (&found["documents"], found["stride"].to_string()),
                (&json!(3), stride.clone())
            );
            close(
                &found["nats_per_token"]["value"],
                &expected["nats_per_token"],
                stride,
            );
            close(
                &found["bits_per_byte"]["value"],
                &expected["bits_per_byte"],
                stride,
            );
            let relative = |score: &Value| json!(score["perplexity"].as_f64().unwrap().ln());
            close(&relative(found), &relative(expected), stride);
            assert!(found["nats_per_token"]["standard_error"].as_f64().unwrap() > 0.0);
        }
    }
}

/// Questions in both formats: every log-likelihood, every share.
#[apply(every_device_name!)]
fn questions_are_answered_as_transformers_does(#[case] device: &str) {
    let place = Place::new();
    let args = format!(
        "--model {TINY_MIXTRAL} --task {DATA}/squares.jsonl --task {DATA}/cubes/rc_1shot/requests.jsonl.gz --answers answers.jsonl"
    );
    let found = eval_on(device, &place, &args);
    let answers = fs::read_to_string(place.path("answers.jsonl")).unwrap();
    let answers: Vec<Value> = answers
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let recorded = recorded();
    let expected = recorded["evaluation"]["tasks"].as_object().unwrap();
    assert_eq!(found["tasks"].as_array().unwrap().len(), expected.len());
    for found in found["tasks"].as_array().unwrap() {
        let name = found["task"].as_str().unwrap();
        let expected = &expected[name];
        assert_eq!(found["questions"], expected["questions"]);
        assert_eq!(
            (&found["truncated"], &found["shots"]),
            (&json!(0), &json!(0))
        );
        close(
            &found["gold_bits_per_byte"]["value"],
            &expected["gold_bits_per_byte"],
            name,
        );
        for (way, share) in expected["accuracy"].as_object().unwrap() {
            close(&found["accuracy"][way]["value"], share, way);
        }
        let own = answers.iter().filter(|answer| answer["task"] == *name);
        let own: Vec<&Value> = own.collect();
        let expected = expected["answers"].as_array().unwrap();
        assert_eq!(own.len(), expected.len());
        for (found, expected) in own.iter().zip(expected) {
            let pairs = found["choices"]
                .as_array()
                .unwrap()
                .iter()
                .zip(expected.as_array().unwrap());
            for (found, expected) in pairs {
                assert_eq!(found["tokens"], expected["tokens"]);
                close(&found["log_likelihood"], &expected["log_likelihood"], name);
                close(&found["unconditional"], &expected["unconditional"], name);
            }
        }
    }
    let table = place.succeed(&format!(
        "eval --device flex {args} --text {DATA}/texts.jsonl"
    ));
    for words in [
        "squares",
        "cubes_rc_1shot",
        "perplexity",
        "unconditional",
        " ± ",
    ] {
        assert!(table.contains(words), "no {words:?} in:\n{table}");
    }
}

#[test]
fn examples_and_samples_are_drawn_by_the_seed() {
    let place = Place::new();
    let args = |more: &str| format!("--model {TINY_MIXTRAL} --task {DATA}/squares.jsonl {more}");
    let shots = |more: &str| {
        eval(
            &place,
            &args(&format!("--shots-from {DATA}/squares.jsonl {more}")),
        )["tasks"][0]
            .clone()
    };
    let two = shots("--shots 2 --seed 1");
    assert_eq!((&two["shots"], &two["truncated"]), (&json!(2), &json!(0)));
    assert_eq!(two, shots("--shots 2 --seed 1"));
    assert_ne!(
        two["gold_bits_per_byte"],
        shots("--shots 2 --seed 2")["gold_bits_per_byte"]
    );
    // Eleven examples are more than the 64 tokens of the context.
    let many = args(&format!("--shots-from {DATA}/squares.jsonl --shots 11"));
    let output = place.run(&format!("eval {many}"));
    let told = stderr(&output);
    assert!(
        told.contains("12 questions are longer than the model's context of 64"),
        "{told}"
    );
    assert_eq!(
        eval(&place, &args("--questions 5"))["tasks"][0]["questions"],
        5
    );
}

/// A run's own model on its own held-out documents, whether they are text or were prepared.
#[test]
fn a_run_is_evaluated_on_what_was_held_out() {
    let place = Place::new();
    let lines = (0..300)
        .map(|n| json!({"text": format!("The square of {n} is {}.", n * n)}).to_string() + "\n");
    place.write("lines.jsonl", lines.collect::<String>());
    place.succeed("prepare lines.jsonl --out shards --validation 0.1");
    place.succeed("--config tiny.toml --data shards --out run");
    let found = eval(&place, "--model run --text shards --stride 16");
    let index = fs::read_to_string(place.path("shards/index.json")).unwrap();
    let index: Value = serde_json::from_str(&index).unwrap();
    let side = &index["validation"][0];
    let text = &found["texts"][0];
    assert_eq!(found["context"], 16);
    assert_eq!(
        (&text["documents"], &text["bytes"]),
        (&side["documents"], &side["bytes"])
    );
    // An untrained model of bytes costs some ln 257 = 5.5 nats for each; this one has seen six steps.
    let nats = text["nats_per_token"]["value"].as_f64().unwrap();
    assert!((3.0..6.0).contains(&nats), "{nats}");
}

/// Questions on the way and at the end: what `eval` says of the same checkpoint.
#[test]
fn a_run_is_examined_on_the_way() {
    let place = Place::new();
    let line = |n: usize| {
        json!({"prompt": format!("{n}+1="), "choices": ["a", "b"], "gold": n % 2}).to_string()
            + "\n"
    };
    place.write("sums.jsonl", (0..8).map(line).collect::<String>());
    let tiny = fs::read_to_string(place.path("tiny.toml")).unwrap();
    let evaluation = "[evaluation]\ntasks = [\"sums.jsonl\"]\nevery = 4\nquestions = 6\n";
    place.write("examined.toml", format!("{tiny}{evaluation}"));
    place.succeed("--config examined.toml --out run --device flex --tensorboard");
    let log = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let records = log.lines().map(|line| serde_json::from_str(line).unwrap());
    let records: Vec<Value> = records
        .filter(|record: &Value| record["kind"] == "task")
        .collect();
    let steps: Vec<&Value> = records.iter().map(|record| &record["step"]).collect();
    assert_eq!(steps, [4, 6]);
    for (record, step) in records.iter().zip([4, 6]) {
        assert_eq!(
            (&record["task"], &record["questions"]),
            (&json!("sums"), &json!(6))
        );
        let args = format!(
            "--model run/checkpoints/step-{step} --task sums.jsonl --questions 6 --seed 6198"
        );
        let found = &eval(&place, &args)["tasks"][0];
        close(
            &record["gold_bits_per_byte"],
            &found["gold_bits_per_byte"]["value"],
            "bits",
        );
        close(
            &record["accuracy"],
            &found["accuracy"]["raw"]["value"],
            "accuracy",
        );
        close(
            &record["accuracy_error"],
            &found["accuracy"]["raw"]["standard_error"],
            "error",
        );
        close(
            &record["accuracy_unconditional"],
            &found["accuracy"]["unconditional"]["value"],
            "unconditional",
        );
    }
    // What is asked changes nothing of what is learnt.
    place.succeed("--config tiny.toml --out plain --device flex");
    let weights =
        |run: &str| fs::read(place.path(run).join("checkpoints/step-6/model.safetensors")).unwrap();
    assert!(weights("run") == weights("plain"));
    place.succeed("--out run --resume");

    for (wrong, words) in [
        ("tasks = [\"nowhere.jsonl\"]", ["nowhere.jsonl", "read"]),
        ("every = 3", ["evaluation.tasks", "at least one file"]),
        (
            "tasks = [\"sums.jsonl\"]\nquestions = 0",
            ["evaluation.questions", "at least 1"],
        ),
    ] {
        place.write("wrong.toml", format!("{tiny}[evaluation]\n{wrong}\n"));
        let message = place.refuse("--config wrong.toml --out wrong");
        for word in words {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
    }
}

#[rstest]
#[case::nothing("--model tiny", &["--text PATH", "--task FILE"])]
#[case::no_model("--text a.txt", &["--model"])]
#[case::model("--model . --text a.txt", &["holds no model", "config.toml"])]
#[case::text_missing("--model tiny --text nowhere.txt", &["nowhere.txt", "does not exist"])]
#[case::text_empty("--model tiny --text empty.txt", &["empty.txt", "not one token"])]
#[case::stride("--model tiny --text a.txt --stride 65", &["stride = 65", "from 1 to 64"])]
#[case::no_stride("--model tiny --text a.txt --stride 0", &["stride = 0", "from 1 to 64"])]
#[case::batch("--model tiny --text a.txt --batch 0", &["batch = 0", "at least 1"])]
#[case::task_missing("--model tiny --task nowhere.jsonl", &["nowhere.jsonl", "read"])]
#[case::task_line("--model tiny --task gold.jsonl", &["gold.jsonl:2", "from 0 to 1"])]
#[case::task_not_packed("--model tiny --task plain.jsonl.gz", &["plain.jsonl.gz"])]
#[case::questions("--model tiny --task good.jsonl --questions 0", &["questions = 0", "at least 1"])]
#[case::shots_alone("--model tiny --task good.jsonl --shots 2", &["--shots-from"])]
#[case::shots("--model tiny --task good.jsonl --shots 2 --shots-from good.jsonl", &["shots = 2", "at most 0"])]
#[case::shots_of_requests("--model tiny --task requests --shots 1 --shots-from good.jsonl", &["shots = 1", "already"])]
#[case::long_answer("--model tiny --task long.jsonl", &["long, question 0", "model sees 64"])]
#[case::answers("--model tiny --task good.jsonl --answers nowhere/a.jsonl", &["nowhere/a.jsonl", "create"])]
fn a_mistake_is_refused(#[case] args: &str, #[case] words: &[&str]) {
    let place = Place::new();
    let good = "{\"prompt\": \"a\", \"choices\": [\"b\", \"c\"], \"gold\": 1}\n";
    place.write("a.txt", "abc");
    place.write("empty.txt", "");
    place.write("good.jsonl", good);
    place.write("plain.jsonl.gz", good);
    place.write(
        "gold.jsonl",
        format!("{good}{}", good.replace("\"gold\": 1", "\"gold\": 2")),
    );
    place.write(
        "long.jsonl",
        good.replace("\"c\"", &format!("{:?}", "x y ".repeat(100))),
    );
    let args = args.replace("--model tiny", &format!("--model {TINY_MIXTRAL}"));
    let args = args.replace(
        "--task requests",
        &format!("--task {DATA}/cubes/rc_1shot/requests.jsonl.gz"),
    );
    let message = place.refuse(&format!("eval {args}"));
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}
