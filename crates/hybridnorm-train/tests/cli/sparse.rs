//! Sparse experts from the command line: what is refused, and a tiny run from beginning to end.

use std::fs;

use rstest::rstest;
use serde_json::Value;

use crate::place::{Place, stderr};

#[rstest]
#[case::unknown_field("top_k = 2", "top_kk = 2", &["top_kk", "top_k"])]
#[case::unknown_loss("balance = 0.01", "balanse = 0.01", &["balanse", "balance"])]
#[case::unknown_sparse("d_ff = 12", "d_ff = 12\ncapacity = 2.0", &["capacity", "capacity_factor"])]
#[case::missing_field("d_ff = 12", "", &["d_ff"])]
#[case::score("top_k = 2", "top_k = 2\nscore = \"sofmax\"", &["sofmax", "softmax", "sigmoid"])]
#[case::top_k("top_k = 2", "top_k = 5", &["sparse.router.top_k = 5", "from 1 to router.n_experts = 4"])]
#[case::no_top_k("top_k = 2", "top_k = 0", &["sparse.router.top_k = 0", "from 1"])]
#[case::no_experts("n_experts = 4", "n_experts = 0", &["sparse.router.n_experts = 0", "from 1"])]
#[case::jitter("top_k = 2", "top_k = 2\njitter = 1.0", &["sparse.router.jitter = 1", "above 0 and below 1"])]
#[case::bias_update("top_k = 2", "top_k = 2\nbias_update = -0.1", &["sparse.router.bias_update = -0.1", "above 0"])]
#[case::d_ff("d_ff = 12", "d_ff = 0", &["sparse.d_ff = 0", "from 1"])]
#[case::gate("d_ff = 12", "d_ff = 12\nactivation = \"gelu\"", &["sparse.activation = gelu", "swi-glu, ge-glu, ge-glu-exact, re-glu"])]
#[case::activation("d_ff = 12", "d_ff = 12\nactivation = \"silu\"", &["silu", "swi-glu"])]
#[case::shared("d_ff = 12", "d_ff = 12\nshared_d_ff = 0", &["sparse.shared_d_ff = 0", "from 1"])]
#[case::capacity("d_ff = 12", "d_ff = 12\ncapacity_factor = 0.0", &["sparse.capacity_factor = 0", "above 0"])]
#[case::balance("balance = 0.01", "balance = -1.0", &["sparse.losses.balance = -1", "at least 0"])]
#[case::z("z = 0.001", "z = nan", &["sparse.losses.z = NaN", "finite"])]
#[case::layer("\"all\"", "{ only = [2] }", &["sparse.layers = 2", "model.n_layers = 2"])]
#[case::no_layer("\"all\"", "{ only = [] }", &["sparse.layers = only = []", "at least one layer"])]
#[case::every("\"all\"", "{ every = 3 }", &["sparse.layers = every = 3", "model.n_layers = 2"])]
#[case::never("\"all\"", "{ every = 0 }", &["sparse.layers = every = 0", "model.n_layers = 2"])]
#[case::layers("\"all\"", "\"some\"", &["some", "all", "every", "only"])]
fn a_mistake_about_experts_is_refused_in_one_line(
    #[case] from: &str,
    #[case] to: &str,
    #[case] words: &[&str],
) {
    let place = Place::new();
    place.write_sparse_variant("wrong.toml", from, to);
    for command in ["train", "plan"] {
        let message = place.refuse(&format!("{command} --config wrong.toml"));
        for word in words {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
    }
}

#[test]
fn a_sparse_run_from_beginning_to_end() {
    let place = Place::new();
    let out = place.succeed("--config sparse.toml --out run");
    for words in [
        "of them active",
        "4 experts of width 12, 2 for each token, in all 2 layers; dropless",
        "load balancing 0.01, router z-loss 0.001",
        "this model",
        "sample, continuing",
    ] {
        assert!(out.contains(words), "no {words:?} in:\n{out}");
    }
    let summary = fs::read_to_string(place.path("run/summary.json")).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    // Two layers of which each token uses two experts of four.
    let idle = 2 * 2 * 3 * 16 * 12;
    let count = |field: &str| summary[field].as_u64().unwrap();
    assert_eq!(count("parameters") - count("active_parameters"), idle);
    let log = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(first["routers"].as_array().unwrap().len(), 2);
    for figure in ["loss", "balance_loss", "router_z_loss"] {
        assert!(first[figure].as_f64().unwrap() > 0.0, "{figure}: {first}");
    }

    let generate = |flags: &str| {
        place.succeed(&format!(
            "generate --run run --prompt The --tokens 40 {flags}"
        ))
    };
    let greedy = generate("--temperature 0 --seed 1");
    assert!(greedy.starts_with("The"));
    assert_eq!(greedy, generate("--temperature 0 --seed 2"));
    place.succeed("--out run --resume");

    let message = place.refuse("--out run --resume --preset demo");
    assert!(message.contains("resuming would change"), "{message}");
    // A checkpoint of other experts is named by its tensor.
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    let wider = config.replace("[sparse]\nd_ff = 12", "[sparse]\nd_ff = 24");
    assert_ne!(config, wider);
    place.write("run/config.toml", wider);
    let output = place.run("generate --run run");
    assert_eq!(output.status.code(), Some(2));
    let message = stderr(&output);
    assert!(message.contains("feed_forward.experts"), "{message}");
}

#[test]
fn a_sparse_plan_can_be_trained() {
    let place = Place::new();
    let toml = place.succeed("plan --config sparse.toml --steps 1 --toml");
    assert!(toml.contains("[sparse.router]"), "{toml}");
    place.write("plan.toml", &toml);
    assert_eq!(toml, place.succeed("plan --config plan.toml --toml"));
    place.succeed("train --config plan.toml");
    let stored = fs::read_to_string(place.path("runs/plan/config.toml")).unwrap();
    assert_eq!(stored, toml);
}

/// A preset replaces the whole model, its experts included.
#[test]
fn a_dense_preset_over_a_sparse_file_is_dense() {
    let place = Place::new();
    let toml = place.succeed("plan --config sparse.toml --preset demo --toml");
    assert!(!toml.contains("sparse"), "{toml}");
    let toml = place.succeed("plan --config tiny.toml --preset moe-demo --toml");
    assert!(toml.contains("n_experts = 8"), "{toml}");
}

#[test]
fn presets_of_both_kinds_are_listed() {
    let out = Place::new().succeed("placements");
    for words in ["moe-demo", "moe-1b-7b", "151,400,640 parameters"] {
        assert!(out.contains(words), "no {words:?} in:\n{out}");
    }
    assert_eq!(out.matches("of them active").count(), 2, "{out}");
}

#[test]
fn a_sparse_step_is_measured() {
    if cfg!(feature = "flex") {
        let args = "bench step --d-model 16 --layers 2 --heads 2 --kv-heads 1 --ffn 32 --vocab 64 --seq 32 --batch 32 \
                    --experts 4 --top-k 2 --steps 1 --warmup 0 --device flex --json";
        let out = Place::new().succeed(args);
        let json: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let number = |key: &str| json[key].as_u64().unwrap();
        assert_eq!(
            [number("experts"), number("top_k"), number("ffn")],
            [4, 2, 32]
        );
        assert_eq!(
            number("params") - number("active_params"),
            2 * 2 * 3 * 16 * 32
        );
        assert!(json["tokens_per_s"].as_f64().unwrap() > 0.0);
        let dense = Place::new().succeed(
            "bench step --preset demo --layers 1 --batch 1 --seq 8 --steps 1 --warmup 0 --device flex --json",
        );
        let json: Value = serde_json::from_str(dense.lines().last().unwrap()).unwrap();
        assert_eq!(json["params"], json["active_params"]);
        assert!(json["experts"].is_null() && json["top_k"].is_null());
    }
}
