//! `bench`: what it refuses, and a measurement of a tiny shape.

use rstest::rstest;

use crate::place::{Place, stderr};

/// A shape that takes milliseconds, with enough tokens for a steady loss.
const TINY: &str =
    "--d-model 16 --layers 2 --heads 2 --kv-heads 1 --ffn 32 --vocab 64 --seq 32 --batch 32";

#[rstest]
#[case::nothing("bench", &["bench", "step"])]
#[case::unknown("bench stpe", &["stpe", "step"])]
#[case::preset("bench step --preset dmeo", &["preset", "dmeo", "did you mean \"demo\"?"])]
#[case::placement("bench step --placement hybird-star", &["placement", "did you mean \"hybrid-star\"?"])]
#[case::device("bench step --device felx", &["device", "felx", "did you mean \"flex\"?"])]
#[case::no_number("bench step --layers four", &["four", "--layers"])]
#[case::steps("bench step --steps 0", &["steps", "at least 1"])]
#[case::looks("bench step --diagnostics --forward-only", &["diagnostics", "not with forward_only"])]
#[case::one_look("bench step --diagnostics --steps 1", &["steps = 1", "at least 2 with diagnostics"])]
#[case::batch("bench step --batch 0", &["batch", "at least 1"])]
#[case::seq("bench step --seq 0", &["seq", "at least 1"])]
#[case::d_model("bench step --d-model 0", &["d_model", "at least 1"])]
#[case::layers("bench step --layers 0", &["n_layers", "at least 1"])]
#[case::heads("bench step --heads 3", &["n_heads", "divisor of d_model = 256"])]
#[case::no_heads("bench step --heads 0", &["n_heads", "at least 1"])]
#[case::kv_heads("bench step --kv-heads 3", &["n_kv_heads", "divisor of n_heads = 8"])]
#[case::ffn("bench step --ffn 0", &["d_ff", "at least 1"])]
#[case::experts("bench step --experts 8", &["experts = 8", "--top-k"])]
#[case::top_k("bench step --top-k 2", &["top_k = 2", "--experts"])]
#[case::top_k_beyond("bench step --experts 2 --top-k 3", &["sparse.router.top_k", "from 1 to router.n_experts = 2"])]
#[case::no_experts("bench step --experts 0 --top-k 1", &["sparse.router.n_experts", "from 1"])]
#[case::vocab("bench step --vocab 0", &["vocab_size", "at least 1"])]
#[case::vocab_beyond("bench step --vocab 999999999999", &["vocab_size", "at most"])]
#[case::placements("bench placements --steps 2 --placements pre", &["--placements: it goes before"])]
#[case::batch_beyond("bench step --batch 9999999999999999", &["batch", "address space"])]
#[case::seq_beyond("bench step --seq 18446744073709551615", &["batch", "address space"])]
fn a_measurement_that_cannot_be_is_refused(#[case] args: &str, #[case] words: &[&str]) {
    let message = Place::new().refuse(args);
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

#[test]
fn a_step_is_measured_on_every_cpu_device() {
    let place = Place::new();
    let devices = hybridnorm_train::device::DEVICES.iter();
    let on_cpu = devices.filter(|row| ["flex", "ndarray"].contains(&row.name));
    for row in on_cpu.filter(|row| row.is_compiled_in()) {
        let name = row.name;
        let args = format!("bench step {TINY} --steps 2 --warmup 1 --device {name} --json");
        let output = place.run(&args);
        let told = stderr(&output);
        assert!(output.status.success(), "{told}");
        assert!(told.contains("tokens/s"), "{told}");
        let out = String::from_utf8(output.stdout).unwrap();
        let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{key}: {out}"));

        assert!(number("p10_ms") > 0.0 && number("p10_ms") <= number("step_ms"));
        assert!(number("step_ms") <= number("p90_ms"));
        let tokens_per_s = 32.0 * 32.0 / number("step_ms") * 1e3;
        assert!((number("tokens_per_s") / tokens_per_s - 1.0).abs() < 1e-9);
        // Random tokens cannot be predicted. An untied head starts with deviation 1/√d on normed vectors, so logits
        // have variance 1, and the mean loss of N(0, σ²) logits is ln(vocab) + σ²/2.
        let expected = 64f64.ln() + 0.5;
        assert!((number("loss") - expected).abs() < 0.25, "{out}");
        if cfg!(target_os = "linux") {
            assert!(number("peak_bytes") > 1e6, "{out}");
        }
        assert_eq!(json["device"], name);
        assert_eq!(json["placement"], "hybrid-star");
        let sizes = [
            "d_model", "layers", "heads", "kv_heads", "ffn", "vocab", "seq", "batch",
        ];
        assert_eq!(
            sizes.map(number),
            [16.0, 2.0, 2.0, 1.0, 32.0, 64.0, 32.0, 32.0]
        );
    }
}

#[test]
fn placements_are_measured_side_by_side() {
    let args = format!(
        "bench placements --placements pre,hybrid --rounds 1 {TINY} --steps 1 --device flex --json"
    );
    let out = Place::new().succeed(&args);
    let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&json["d_model"], &json["rounds"]), (&16.into(), &1.into()));
    let rows = json["placements"].as_array().unwrap();
    for (row, name) in rows.iter().zip(["pre", "hybrid"]) {
        assert_eq!(row["placement"], name);
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key}: {out}"));
        for positive in ["tokens_per_s", "step_ms", "time_ratio", "norms_share"] {
            assert!(number(positive) > 0.0, "{out}");
        }
        assert!(!cfg!(target_os = "linux") || number("peak_bytes") > 1e6);
    }
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["time_ratio"], 1.0);
}

/// Tokens and weights come from fixed seeds, and every step has its own tokens.
#[test]
fn the_loss_is_the_same_each_time_and_another_in_each_step() {
    let place = Place::new();
    let loss = |steps: u32| {
        let args = format!("bench step {TINY} --steps {steps} --warmup 0 --device flex --json");
        let out = place.succeed(&args);
        let json: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
        json["loss"].as_f64().unwrap()
    };
    if cfg!(feature = "flex") {
        assert_eq!(loss(2), loss(2));
        assert_ne!(loss(2), loss(3));
    }
}

/// Plain operations are not timed apart, so a table of norms that are not known tells that they were used.
#[test]
fn placements_are_measured_with_the_operations_asked_for() {
    if cfg!(feature = "flex") {
        let place = Place::new();
        let args =
            format!("--placements pre,hybrid --rounds 1 {TINY} --steps 1 --warmup 0 --device flex");
        let fast = place.succeed(&format!("bench placements {args}"));
        assert!(
            fast.contains("| hybrid |") && !fast.contains("not known"),
            "{fast}"
        );
        let plain = place.succeed(&format!("bench placements --reference-ops {args}"));
        let rows = plain
            .lines()
            .filter(|line| line.ends_with("| not known | not known |"));
        assert_eq!(rows.count(), 2, "{plain}");
    }
}

#[test]
fn people_get_lines_and_no_json() {
    if cfg!(feature = "flex") {
        let out = Place::new().succeed(&format!(
            "bench step {TINY} --steps 1 --warmup 0 --device flex"
        ));
        for words in [
            "32 sequences x 32 = 1024",
            "hybrid-star",
            "ms a step",
            "tokens/s",
            "uniform guess",
            "MiB",
        ] {
            assert!(out.contains(words), "no {words:?} in:\n{out}");
        }
        assert!(!out.contains('{'), "{out}");
    }
}
