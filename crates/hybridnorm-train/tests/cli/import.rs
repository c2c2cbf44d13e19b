//! Published models from a folder to a run, and on from there.

use std::fs;
use std::path::PathBuf;

use hybridnorm_train::verify::shipped_reference;
use rstest::rstest;

use super::place::{Place, stderr};

/// The folder of a model that transformers made.
fn published(case: &str) -> PathBuf {
    shipped_reference().unwrap().join(case).join("model")
}

/// A copy of it in `place`, with a tokenizer of `tokens` words and of those that were added.
fn with_tokenizer(place: &Place, case: &str, tokens: usize, added: usize) {
    fs::create_dir(place.path("folder")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(published(case).join(file), place.path("folder").join(file)).unwrap();
    }
    let words = (1..tokens).map(|n| format!("\"w{n}\": {n}"));
    let words = std::iter::once("\"<eos>\": 0".to_string()).chain(words);
    let words = words.collect::<Vec<_>>().join(", ");
    let token = |id: usize, content: &str| {
        format!(
            r#"{{"id": {id}, "content": "{content}", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}}"#
        )
    };
    let mut more = vec![token(0, "<eos>")];
    more.extend((0..added).map(|n| token(tokens + n, &format!("<image_{n}>"))));
    let tokenizer = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{}], "normalizer": null,
            "pre_tokenizer": {{"type": "Whitespace"}}, "post_processor": null, "decoder": null,
            "model": {{"type": "WordLevel", "vocab": {{{words}}}, "unk_token": "w1"}}}}"#,
        more.join(", ")
    );
    place.write("folder/tokenizer.json", tokenizer);
    place.write("folder/chat_template.jinja", "{{ messages }}");
}

#[rstest]
#[case("hf_gemma3", "sandwich-qk")]
#[case("hf_olmoe", "pre-qk-full")]
fn an_imported_model_generates_and_goes_on_learning(#[case] case: &str, #[case] placement: &str) {
    let place = Place::new();
    with_tokenizer(&place, case, 40, 0);
    let shown = place.succeed("plan --hf folder");
    assert!(
        shown.contains(&format!("placement {placement}\n")),
        "{shown}"
    );
    let out = place.succeed("import folder --out run --device flex");
    assert!(out.starts_with(&shown), "{out}");
    for file in [
        "config.toml",
        "source.json",
        "tokenizer.json",
        "chat_template.jinja",
    ] {
        assert!(place.path("run").join(file).is_file(), "{file}");
    }
    assert!(place.succeed("inspect run").contains("step-0"));
    let text =
        place.succeed("generate --run run --prompt w2 --tokens 8 --temperature 0 --device flex");
    assert!(text.starts_with("w2"), "{text}");

    // Another length, rate and batch need no leave: nothing was learnt yet. Another model does.
    let words: String = (0..3000).map(|n| format!("w{} ", n % 7 + 1)).collect();
    place.write("words.txt", format!("{words}\n\n{words}"));
    let train = "train --resume --out run --data words.txt --device flex --steps 2 --seq 16 --batch 2 --micro-batch 2";
    let refusal = place.run(&format!("{train} --placement pre"));
    assert!(
        stderr(&refusal).contains("model.placement"),
        "{}",
        stderr(&refusal)
    );
    place.succeed(&format!("{train} --lr 1e-3"));
    let log = fs::read_to_string(place.path("run/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert!(first["loss"].as_f64().unwrap().is_finite());
    // From here on it is a run as any other.
    let refusal = place.run(&format!("{train} --lr 1e-2"));
    assert!(
        stderr(&refusal).contains("schedule.lr"),
        "{}",
        stderr(&refusal)
    );
}

#[test]
fn what_cannot_be_imported_is_refused_and_leaves_nothing() {
    let place = Place::new();
    with_tokenizer(&place, "hf_llama", 42, 0);
    let refusal = place.refuse("import folder --out run");
    for words in ["tokenizer", "42 tokens", "at most 41"] {
        assert!(refusal.contains(words), "{refusal}");
    }
    assert!(
        place
            .refuse("import nowhere --out run")
            .contains("nowhere/config.json")
    );
    fs::create_dir(place.path("full")).unwrap();
    place.write("full/notes.txt", "mine");
    let folder = published("hf_llama");
    let folder = folder.display();
    assert!(
        place
            .refuse(&format!("import {folder} --out full"))
            .contains("full")
    );
    let config = fs::read_to_string(published("hf_llama").join("config.json")).unwrap();
    place.write("folder/config.json", config.replace("llama3", "dynamic"));
    let refusal = place.refuse("import folder --out run");
    assert!(
        refusal.contains("rope_parameters.rope_type = dynamic"),
        "{refusal}"
    );
    place.write(
        "folder/config.json",
        config.replace("\"llama\"", "\"gpt2\""),
    );
    assert!(
        place
            .refuse("plan --hf folder")
            .contains("implemented are llama, mistral")
    );
    place.write("folder/config.json", &config);
    place.write("folder/model.safetensors", "no tensors");
    assert!(
        place
            .refuse("import folder --out run")
            .contains("model.safetensors")
    );
}

/// Without a tokenizer there is a warning; so there is with one that has tokens for images, beyond the model's rows.
#[test]
fn tokenizers_are_held_against_the_vocabulary() {
    let place = Place::new();
    let folder = published("hf_llama");
    let bare = place.run(&format!("import {} --out bare", folder.display()));
    assert!(bare.status.success(), "{}", stderr(&bare));
    assert!(
        stderr(&bare).contains("no tokenizer.json"),
        "{}",
        stderr(&bare)
    );
    with_tokenizer(&place, "hf_llama", 41, 2);
    let eyes = place.run("import folder --out eyes");
    assert!(eyes.status.success(), "{}", stderr(&eyes));
    assert!(stderr(&eyes).contains("rows for 41"), "{}", stderr(&eyes));
    let config = place.succeed(&format!("plan --hf {} --toml", folder.display()));
    assert!(
        config.contains("attention_bias = true") && config.contains("low_freq_factor"),
        "{config}"
    );
}
