//! Published models from a folder to a run, and on from there.

use std::fs;
use std::path::{Path, PathBuf};

use hybridnorm_testing::{any_device, apply, every_device_name};
use hybridnorm_train::generate::greedy;
use hybridnorm_train::model::TrainedModel;
use hybridnorm_train::verify::shipped_reference;
use rstest::rstest;
use serde_json::{Value, json};

use super::eval::DATA;
use super::generate::{TINY_MIXTRAL, recorded};
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

/// A run that was imported begins and ends its texts as transformers does, and costs the same: the folder's own marks count.
#[apply(every_device_name!)]
fn an_imported_run_writes_and_scores_as_its_folder(#[case] device: &str) {
    let place = Place::new();
    place.succeed(&format!(
        "import {TINY_MIXTRAL} --out run --device {device}"
    ));
    let generation = &recorded()["generation"];
    place.write("prompts.txt", generation["prompt"].as_str().unwrap());
    let write = |run: &str| {
        let greedy = format!("--temperature 0 --tokens 24 --device {device}");
        let out = place.succeed(&format!(
            "generate --run {run} --prompts prompts.txt {greedy}"
        ));
        serde_json::from_str::<Value>(&out).unwrap()
    };
    let line = write("run");
    assert_eq!(line["text"], generation["greedy_text"]);
    let here = any_device();
    let open = |path: &Path| TrainedModel::open(path, None, &here).unwrap();
    let (folder, run) = (open(TINY_MIXTRAL.as_ref()), open(&place.path("run")));
    assert_eq!(&folder.edges, &run.edges);
    assert_eq!(folder.context, run.context);
    let eval = |model: &str| {
        let flags = format!("--text {DATA}/texts.jsonl --task {DATA}/squares.jsonl --json");
        let out = place.succeed(&format!("eval --model {model} {flags} --device {device}"));
        let mut found: Value = serde_json::from_str(&out).unwrap();
        found["model"].take();
        found
    };
    assert_eq!(eval(TINY_MIXTRAL), eval("run"));

    // Each of a list of ids ends a text.
    fs::create_dir(place.path("folder")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        fs::copy(
            Path::new(TINY_MIXTRAL).join(file),
            place.path("folder").join(file),
        )
        .unwrap();
    }
    let third = {
        let prompt = run.prompt(generation["prompt"].as_str().unwrap()).unwrap();
        greedy(&run.decoder, &prompt, 3, true, 304).unwrap()[2]
    };
    place.write(
        "folder/generation_config.json",
        format!("{{\"eos_token_id\": [1, {third}]}}"),
    );
    place.succeed("import folder --out ends --device flex");
    let line = write("ends");
    assert_eq!(
        (&line["ending"], &line["tokens"]),
        (&json!("end"), &json!(3))
    );
    place.write("folder/generation_config.json", "{");
    let refusal = place.refuse("import folder --out broken --device flex");
    assert!(refusal.contains("generation_config.json"), "{refusal}");
}

/// The commands that it ends with are read by a shell as they are meant.
#[test]
fn what_to_do_next_can_be_pasted() {
    let place = Place::new();
    let mut import = place.command(&format!("import {TINY_MIXTRAL} --device flex --out"));
    let output = import.arg("my run").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines = said.lines().filter(|line| line.starts_with("hybridnorm"));
    let words: Vec<Vec<String>> = lines.map(|line| shlex::split(line).unwrap()).collect();
    let program = "hybridnorm-train";
    assert_eq!(
        words,
        [
            vec![program, "generate", "--model", "my run", "--prompt", "TEXT"],
            vec![
                program, "train", "--resume", "--out", "my run", "--data", "FILE", "--steps", "N"
            ],
        ]
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
    fs::create_dir(place.path("ours")).unwrap();
    place.write("ours/config.toml", "");
    for command in ["import ours --out run", "plan --hf ours"] {
        let refusal = place.refuse(command);
        assert!(
            refusal.contains("a run of this program already")
                && refusal.contains("export ours --out"),
            "{refusal}"
        );
    }
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

/// A folder of the authors' own code: their configuration as YAML, their names of tensors; weights that are pickled are refused with the
/// line that turns them into safetensors.
#[test]
fn the_authors_own_folders_are_imported() {
    let place = Place::new();
    let case = shipped_reference().unwrap().join("dense_hybridnorm_bias");
    fs::create_dir(place.path("theirs")).unwrap();
    let whole: Value = serde_json::from_slice(&fs::read(case.join("case.json")).unwrap()).unwrap();
    // JSON is YAML too; what stands around the model is not read.
    let config = json!({"run_name": "a", "model": whole["model_config"], "seed": 6198});
    place.write("theirs/config.yaml", format!("# theirs\n{config:#}\n"));
    fs::write(place.path("theirs/model.pt"), "no pickle").unwrap();
    let refusal = place.refuse("import theirs --out run --device flex");
    for words in ["model.pt", "runs code", "python3 -c", "weights_only=True"] {
        assert!(refusal.contains(words), "no {words} in: {refusal}");
    }
    let weights = case.join("weights.safetensors");
    fs::copy(weights, place.path("theirs/model.safetensors")).unwrap();
    let shown = place.succeed("plan --hf theirs");
    assert!(shown.contains("the authors' own release"), "{shown}");
    place.succeed("import theirs --out run --device flex");
    // The reference case itself is such a folder.
    place.succeed(&format!(
        "import {} --out again --device flex",
        case.display()
    ));
    let weights =
        |run: &str| fs::read(place.path(run).join("checkpoints/step-0/model.safetensors"));
    assert_eq!(weights("run").unwrap(), weights("again").unwrap());
    place.write("theirs/config.yaml", "model:\n  d_model: [1\n");
    let refusal = place.refuse("plan --hf theirs");
    assert!(refusal.contains("config.yaml"), "{refusal}");
}

/// What a flag of a run would say of a folder nobody knows.
#[rstest]
#[case("--steps 3")]
#[case("--device flex")]
#[case("--placement pre")]
#[case("--config tiny.toml")]
fn flags_of_a_run_are_refused_beside_a_folder(#[case] flag: &str) {
    let place = Place::new();
    let folder = published("hf_llama");
    let refusal = place.refuse(&format!("plan --hf {} {flag}", folder.display()));
    let name = flag.split(' ').next().unwrap();
    assert!(
        refusal.contains(name) && refusal.contains("--hf"),
        "{refusal}"
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
    // The tokens without a row are no more than that: text is read, scored and learnt from, and what meets one says so.
    let text = "--prompt w2<image_0>w3 --tokens 2 --device flex";
    place.succeed(&format!("generate --run eyes {text}"));
    place.write("words.txt", "w1 w2 w3 <image_0> w4 ".repeat(90));
    place.succeed("eval --model eyes --text words.txt --device flex");
    place.succeed(
        "train --resume --out eyes --data words.txt --device flex --steps 1 --seq 8 --batch 1",
    );
    place.write("eyes/chat_template.jinja", "{{ messages[0].content }}");
    let refusal = place.refuse(&format!("generate --run eyes --chat {text}"));
    assert!(
        refusal.contains("41 (<image_0>)") && refusal.contains("an id below 41"),
        "{refusal}"
    );
    let config = place.succeed(&format!("plan --hf {} --toml", folder.display()));
    assert!(
        config.contains("attention_bias = true") && config.contains("low_freq_factor"),
        "{config}"
    );
}
