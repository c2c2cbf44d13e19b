//! `export`: from a run to a folder, and what happens to a folder that is there.

use std::fs;

use serde_json::Value;

use super::place::Place;

#[test]
fn a_run_becomes_a_folder() {
    let place = Place::new();
    place.succeed("--config tiny.toml --out run --placement hybrid");
    let said = place.succeed("export run --out model");
    for words in [
        "HybridNormForCausalLM",
        "in model.safetensors",
        "differ by nothing",
        "trust_remote_code=True",
    ] {
        assert!(said.contains(words), "no {words:?} in:\n{said}");
    }
    let read = |name: &str| fs::read_to_string(place.path("model").join(name)).unwrap();
    for name in [
        "configuration_hybridnorm.py",
        "modeling_hybridnorm.py",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        assert!(!read(name).is_empty(), "{name}");
    }
    let json = |name: &str| -> Value { serde_json::from_str(&read(name)).unwrap() };
    let config = json("config.json");
    assert_eq!(
        (&config["vocab_size"], &config["tokenizer_vocab_size"]),
        (&272.into(), &257.into())
    );
    assert_eq!(config["eos_token_id"], 256);
    assert_eq!(config["layer_norms"].as_array().unwrap().len(), 2);
    // Rows of the embedding that stand for no token are never generated.
    assert_eq!(
        json("generation_config.json")["suppress_tokens"]
            .as_array()
            .unwrap()
            .len(),
        272 - 257
    );
    let card = read("README.md");
    for words in [
        "library_name: transformers",
        "- hybrid\n",
        "custom_code",
        "`hybrid`",
        "Y = X + Attn_QKV(X)",
        "`text.md`",
        "step 6 of 6: 192 tokens",
        "AdamW",
        "bits per byte",
        "trust_remote_code=True",
        "2 sequences of 16 tokens",
    ] {
        assert!(card.contains(words), "no {words:?} in:\n{card}");
    }
    assert!(
        !card.contains(place.path("").to_str().unwrap()),
        "a path of this machine in:\n{card}"
    );

    // A checkpoint by its folder; an architecture of transformers; half the size, in several files.
    place.succeed("--config tiny.toml --out pre --placement pre");
    let said = place.succeed(
        "export pre/checkpoints/step-4 --out llama --dtype bf16 --max-shard-size 5KB --device flex",
    );
    assert!(
        said.contains("LlamaForCausalLM") && said.contains(" files") && !said.contains("trust"),
        "{said}"
    );
    let card = fs::read_to_string(place.path("llama/README.md")).unwrap();
    assert!(
        card.contains("step 4 of 6") && card.contains("bf16") && !card.contains("custom_code"),
        "{card}"
    );
    assert!(place.path("llama/model.safetensors.index.json").is_file());
    assert!(!place.path("llama/modeling_hybridnorm.py").exists());
    // The project's own format expresses every model.
    let said = place.succeed("export pre --out own --format hybridnorm");
    assert!(said.contains("HybridNormForCausalLM"), "{said}");
}

#[test]
fn a_folder_that_is_there_is_safe() {
    let place = Place::new();
    place.succeed("--config tiny.toml --out run --steps 2");
    place.succeed("export run --out model");
    place.write("model/notes.txt", "mine");
    let message = place.refuse("export run --out model");
    assert!(
        message.contains("model") && message.contains("--force"),
        "{message}"
    );
    // What fails leaves all as it was, --force or not.
    let message = place.refuse("export run --out model --force --format hf");
    assert!(
        message.contains("hybrid-star") && message.contains("no architecture of transformers"),
        "{message}"
    );
    assert!(place.path("model/notes.txt").is_file());
    place.succeed("export run --out model --force");
    assert!(place.path("model/config.json").is_file() && !place.path("model/notes.txt").exists());
    fs::create_dir(place.path("photos")).unwrap();
    place.write("photos/mine.txt", "mine");
    let message = place.refuse("export run --out photos --force");
    assert!(message.contains("config.json"), "{message}");
    for (args, words) in [
        ("export nowhere --out x", "nowhere"),
        ("export photos --out x", "no run and no checkpoint"),
        ("export run --out text.md", "text.md"),
        (
            "export run --out x --max-shard-size huge",
            "--max-shard-size",
        ),
        ("export run --out x --format onnx", "onnx"),
    ] {
        let message = place.refuse(args);
        assert!(message.contains(words), "{args}: {message}");
    }
    // A damaged checkpoint is not exported.
    let weights = place.path("run/checkpoints/step-2/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&weights, bytes).unwrap();
    let message = place.refuse("export run/checkpoints/step-2 --out x");
    assert!(message.contains("model.safetensors"), "{message}");
}
