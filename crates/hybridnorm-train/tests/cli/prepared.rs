//! `prepare`, `tokenizer train`, and runs on what they make.

use std::fs;

use rstest::rstest;
use serde_json::Value;

use super::place::{Place, stderr};

/// `lines.jsonl`: documents enough to hold whole ones out.
fn with_lines() -> Place {
    let place = Place::new();
    let lines: String = (0..300)
        .map(|n| format!("{{\"text\": \"The square of {n} is {}.\"}}\n", n * n))
        .collect();
    place.write("lines.jsonl", lines);
    place
}

fn losses(place: &Place, run: &str) -> Vec<Value> {
    let log = fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let records = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let losses = records.map(|record| record["loss"].clone());
    losses.filter(|loss| !loss.is_null()).collect()
}

#[test]
fn a_prepared_folder_trains_as_its_text_does() {
    let place = with_lines();
    let said = place.succeed("prepare lines.jsonl --out shards --shard-tokens 1000");
    assert!(
        said.contains("training") && said.contains("--data shards"),
        "{said}"
    );
    place.succeed("--config tiny.toml --data lines.jsonl --out text");
    place.succeed("--config tiny.toml --data shards --out shards-run");
    assert_eq!(losses(&place, "shards-run").len(), 6);
    assert_eq!(losses(&place, "shards-run"), losses(&place, "text"));
    let bits = |run: &str| {
        let summary = fs::read_to_string(place.path(&format!("{run}/summary.json"))).unwrap();
        serde_json::from_str::<Value>(&summary).unwrap()["bits_per_byte"]["model"].clone()
    };
    assert_eq!(bits("shards-run"), bits("text"));

    let again = place.succeed("prepare lines.jsonl --out shards --shard-tokens 1000");
    assert!(again.contains("nothing was written"), "{again}");
    let message = place.refuse("prepare lines.jsonl --out shards --shard-tokens 2000");
    assert!(
        message.contains("another size of shards: 1000, not 2000"),
        "{message}"
    );
}

/// The command that it ends with is read by a shell as it is meant.
#[test]
fn what_to_do_next_can_be_pasted() {
    let place = with_lines();
    let mut prepare = place.command("prepare lines.jsonl --out");
    let output = prepare.arg("my shards").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, command) = said.split_once("in my shards: ").unwrap();
    let words = shlex::split(command.lines().next().unwrap()).unwrap();
    assert_eq!(words, ["hybridnorm-train", "--data", "my shards"]);
}

#[test]
fn a_tokenizer_of_ones_own_goes_from_text_to_samples() {
    let place = with_lines();
    let said = place.succeed("tokenizer train lines.jsonl --vocab 300 --out own.json");
    assert!(said.contains("300 ids"), "{said}");
    place.succeed("prepare lines.jsonl --out shards --tokenizer own.json --deduplicate");
    // The folder brings its tokenizer, wherever the file has gone.
    fs::remove_file(place.path("own.json")).unwrap();
    place.succeed("--preset demo --steps 1 --batch 1 --seq 8 --data shards --out run");
    let config = fs::read_to_string(place.path("run/config.toml")).unwrap();
    assert!(config.contains("shards/tokenizer.json") && config.contains("vocab_size = 300"));
    let text = place.succeed("generate --run run --prompt The --tokens 3");
    assert!(text.starts_with("The"));
}

/// A mixture with everything: two sources by weight, a third that is only scored on, masks; and resumed.
#[test]
fn a_mixture_trains_and_resumes() {
    let place = with_lines();
    place.succeed("prepare lines.jsonl --out squares");
    place.succeed("prepare text.md lines.jsonl --out scored --validation 0.5");
    let ids: Vec<u8> = (0..4000u16)
        .flat_map(|n| (if n % 50 == 49 { 256 } else { n % 7 + 97 }).to_le_bytes())
        .collect();
    place.write("olmo-0.npy", &ids);
    place.write("olmo-1.npy", &ids);
    let sources = r#"
document_mask = true
repetition_filter = true

[[data.sources]]
path = "squares"
weight = 3

[[data.sources]]
path = "olmo-*.npy"
width = "u16"
end_of_document = 256

[[data.sources]]
path = "scored"
weight = 0
"#;
    place.write_variant("mixture.toml", "path = \"text.md\"", sources);
    let plan = place.succeed("plan --config mixture.toml");
    for words in [
        "prepared, 3 sources",
        "75.0 % of the sequences",
        "25.0 % of the sequences from 8,000 tokens of olmo-*.npy",
        "tokens attend to their own document only",
        "labels of sequences that repeat themselves",
    ] {
        assert!(plan.contains(words), "no {words:?} in:\n{plan}");
    }
    place.succeed("--config mixture.toml --out whole --steps 6");
    let toml = place.succeed("plan --config mixture.toml --toml");
    place.write("again.toml", &toml);
    place.succeed("--config again.toml --out again");
    assert_eq!(losses(&place, "again"), losses(&place, "whole"));

    // Resumed from half way, a run ends in the same bytes; with a shard cut short it is refused by name.
    let weights = |run: &str| {
        fs::read(place.path(&format!("{run}/checkpoints/step-6/model.safetensors"))).unwrap()
    };
    for step in [4, 6] {
        fs::remove_dir_all(place.path(&format!("again/checkpoints/step-{step}"))).unwrap();
    }
    place.succeed("--out again --resume");
    assert!(weights("again") == weights("whole"));
    let shard = place.path("squares/train-00000.tokens");
    let bytes = fs::read(&shard).unwrap();
    fs::write(&shard, &bytes[..bytes.len() - 2]).unwrap();
    let output = place.run("--out whole --resume");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("train-00000.tokens"),
        "{}",
        stderr(&output)
    );
}

#[rstest]
#[case("prepare nowhere --out x", &["nowhere", "does not exist"])]
#[case("prepare *.parquet --out x", &["*.parquet", "no file"])]
#[case("prepare tiny.toml --out x", &["tiny.toml", ".parquet"])]
#[case("prepare lines.jsonl --out x --validation 1", &["validation fraction", "below 1"])]
#[case("prepare lines.jsonl --out x --workers 0", &["workers is 0"])]
#[case("prepare lines.jsonl --out x --shard-tokens some", &["some", "1.5B"])]
#[case("prepare lines.jsonl --out x --tokenizer words", &["words", "tokenizer.json"])]
#[case("tokenizer train lines.jsonl --vocab 100 --out x", &["vocab is 100", "257"])]
#[case("tokenizer train lines.jsonl --out x", &["--vocab"])]
#[case("--config tiny.toml --data empty", &["empty", "not an index"])]
#[case("--config tiny.toml --data shards --tokenizer words.json", &["data.tokenizer", "shards"])]
#[case("--config both.toml", &["data.path", "data.sources"])]
#[case("--config text.toml", &["text.md", "no prepared folder"])]
#[case("--config bare.toml", &["width", "end_of_document"])]
#[case("--config alone.toml", &["held-out", "weight 0"])]
#[case("--config nothing.toml", &["data.sources.weight", "above 0"])]
fn a_mistake_is_refused_in_one_line(#[case] args: &str, #[case] words: &[&str]) {
    let place = with_lines();
    place.succeed("prepare lines.jsonl --out shards");
    fs::create_dir(place.path("empty")).unwrap();
    place.write("empty/index.json", "{}");
    place.write("olmo.npy", [0; 4000]);
    place.write(
        "words.json",
        r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": null, "post_processor": null, "decoder": null,
            "model": {"type": "WordLevel", "vocab": {"a": 0, "</s>": 1}, "unk_token": "a"}}"#,
    );
    let path = "path = \"text.md\"";
    let source = |name: &str, source: &str| {
        place.write_variant(name, path, &format!("[[data.sources]]\n{source}"));
    };
    place.write_variant(
        "both.toml",
        path,
        &format!("{path}\n[[data.sources]]\npath = \"shards\""),
    );
    source("text.toml", path);
    source("bare.toml", "path = \"olmo.npy\"\nwidth = \"u16\"");
    source(
        "alone.toml",
        "path = \"olmo.npy\"\nwidth = \"u16\"\nend_of_document = 256",
    );
    source("nothing.toml", "path = \"shards\"\nweight = 0");
    let message = place.refuse(args);
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}
