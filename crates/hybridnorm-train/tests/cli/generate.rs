//! `generate`: its flags, its prompts, the models it takes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use hybridnorm_testing::{any_device, apply, every_device_name};
use hybridnorm_train::generate::Message;
use hybridnorm_train::model::TrainedModel;
use rstest::rstest;
use serde_json::{Value, json};

use super::place::{Place, stderr};

/// A folder that transformers wrote.
pub const TINY_MIXTRAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-mixtral");

/// What transformers computed with it.
pub fn recorded() -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/recorded.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[rstest]
#[case::no_model("", &["--model"])]
#[case::nothing_there("--model .", &["holds no model", "config.toml", "config.json"])]
#[case::temperature("--model . --temperature NaN", &["temperature", "NaN", "at least 0"])]
#[case::top_k("--model . --top-k 0", &["top_k", "at least 1"])]
#[case::top_p("--model . --top-p NaN", &["top_p", "at most 1"])]
#[case::min_p("--model . --min-p 1.5", &["min_p", "1.5", "from 0 to 1"])]
#[case::repetition_penalty("--model . --repetition-penalty 0", &["repetition_penalty", "above 0"])]
#[case::stop("--model . --stop=", &["stop", "at least one character"])]
#[case::batch("--model . --prompts a.txt --batch 0", &["batch", "at least 1"])]
#[case::batch_of_one("--model . --batch 2", &["--prompts"])]
#[case::two_prompts("--model . --prompt a --prompts a.txt", &["--prompt", "--prompts", "cannot be used with"])]
#[case::system("--model . --system a", &["--chat"])]
#[case::prompts_missing("--model . --prompts nowhere.txt", &["nowhere.txt", "read"])]
#[case::prompts_not_json("--model . --prompts bad.jsonl", &["bad.jsonl:2", "prompt"])]
#[case::prompts_of_chats("--model . --prompts chat.jsonl", &["chat.jsonl:1", "--chat"])]
fn a_mistake_is_refused(#[case] args: &str, #[case] words: &[&str]) {
    let place = Place::new();
    place.write("a.txt", "a");
    place.write("bad.jsonl", "{\"prompt\": \"a\"}\n{\"propmt\": \"b\"}\n");
    place.write(
        "chat.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n",
    );
    let message = place.refuse(&format!("generate {args}"));
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

/// The lines that a file of prompts gives.
fn lines(place: &Place, args: &str) -> Vec<Value> {
    let out = place.succeed(&format!("generate --model run --tokens 12 {args}"));
    let lines = out.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn a_trained_model_writes_as_it_is_told() {
    let place = Place::new();
    place.succeed("--config tiny.toml --out run");
    let text = |args: &str| place.succeed(&format!("generate {args} --tokens 12 --seed 3"));
    let plain = text("--model run --prompt The");
    assert_eq!(plain, text("--run run --prompt The"));
    assert_eq!(plain, text("--model run/checkpoints/step-6 --prompt The"));
    assert_ne!(plain, text("--model run/checkpoints/step-2 --prompt The"));

    let mut child = place
        .command("generate --model run --prompt - --tokens 12 --seed 3")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"The").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), plain);
    let told = stderr(&output);
    assert!(
        told.contains("4 tokens of prompt, ") && told.contains("12 tokens of text, "),
        "{told}"
    );
    assert_eq!(told.matches("tokens/s").count(), 2, "{told}");

    // Prompts from a file, in their order, the same in every batch.
    place.write(
        "prompts.jsonl",
        "{\"prompt\": \"The\"}\n{\"prompt\": \"Twelve tokens\"}\n\n{\"prompt\": \"\"}\n",
    );
    let alone = lines(&place, "--prompts prompts.jsonl --batch 1 --seed 3");
    assert_eq!(alone.len(), 3);
    for (index, (line, prompt)) in alone.iter().zip(["The", "Twelve tokens", ""]).enumerate() {
        assert_eq!(
            (&line["index"], &line["prompt"]),
            (&json!(index), &json!(prompt))
        );
    }
    assert_eq!(
        format!("The{}\n", alone[0]["text"].as_str().unwrap()),
        plain
    );
    assert_eq!(lines(&place, "--prompts prompts.jsonl --seed 3"), alone);

    // A stop string ends the text before it.
    let first: String = alone[0]["text"].as_str().unwrap().chars().take(4).collect();
    let stop = first.chars().last().unwrap().to_string();
    if !stop.trim().is_empty() {
        place.write("one.jsonl", "{\"prompt\": \"The\"}\n");
        let stopped = lines(
            &place,
            &format!("--prompts one.jsonl --seed 3 --stop {stop}"),
        );
        assert_eq!(stopped[0]["ending"], "stop");
        assert_eq!(
            stopped[0]["text"].as_str().unwrap(),
            first.split(&stop).next().unwrap()
        );
    }

    let long = place.refuse("generate --model run --prompt Sixteen_tokens_and_more");
    for words in ["tokens of the prompt = 24", "at most 16"] {
        assert!(long.contains(words), "no {words:?} in: {long}");
    }
    let chat = place.refuse("generate --model run --chat --prompt Hello");
    assert!(
        chat.contains("no chat template") && chat.contains("leave --chat out"),
        "{chat}"
    );
    let other = place.refuse(&format!(
        "generate --model run --tokenizer {TINY_MIXTRAL}/tokenizer.json"
    ));
    assert!(
        other.contains("the tokenizer the run was trained with"),
        "{other}"
    );
}

/// Beside transformers: the same greedy text, the same tokens of a conversation (`tests/data/make.py`).
#[apply(every_device_name!)]
fn a_hugging_face_folder_writes_and_chats(#[case] device: &str) {
    let place = Place::new();
    let generation = &recorded()["generation"];
    let expected = |field: &str| generation[field].as_str().unwrap();
    let greedy = &format!("--temperature 0 --tokens 24 --device {device}");
    place.write("prompts.txt", expected("prompt"));
    let out = place.succeed(&format!(
        "generate --model {TINY_MIXTRAL} --prompts prompts.txt {greedy}"
    ));
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(line["text"].as_str().unwrap(), expected("greedy_text"));

    let model = TrainedModel::open(TINY_MIXTRAL.as_ref(), None, &any_device()).unwrap();
    assert_eq!(
        (model.context, &model.edges.ends[..], &model.edges.blank[..]),
        (64, &[1][..], &[0][..])
    );
    let ids: Vec<u32> = serde_json::from_value(generation["prompt_ids"].clone()).unwrap();
    assert_eq!(model.prompt(expected("prompt")).unwrap(), ids);
    let messages: Vec<Message> = serde_json::from_value(generation["messages"].clone()).unwrap();
    let template = model.chat_template().unwrap();
    assert_eq!(template.render(&messages).unwrap(), expected("chat"));
    let ids: Vec<u32> = serde_json::from_value(generation["chat_ids"].clone()).unwrap();
    assert_eq!(model.conversation(&template, &messages).unwrap(), ids);

    // What the flags say is the same conversation; only the answer is printed.
    let answer =
        |args: &str| place.succeed(&format!("generate --model {TINY_MIXTRAL} {greedy} {args}"));
    place.write("chat.jsonl", json!({"messages": messages}).to_string());
    let line: Value = serde_json::from_str(&answer("--chat --prompts chat.jsonl")).unwrap();
    assert_eq!(line["prompt"], generation["messages"]);
    let system = [
        "--system",
        "Be brief.",
        "--prompt",
        "What is the square of 7? <s>",
    ];
    let output = place
        .command(&format!("generate --model {TINY_MIXTRAL} {greedy} --chat"))
        .args(system)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("{}\n", line["text"].as_str().unwrap()));

    place.write(
        "robot.jsonl",
        json!({"messages": [{"role": "robot", "content": "a"}]}).to_string(),
    );
    let message = place.refuse(&format!(
        "generate --model {TINY_MIXTRAL} --chat --prompts robot.jsonl"
    ));
    for words in ["chat_template.jinja", "unknown role robot"] {
        assert!(message.contains(words), "no {words:?} in: {message}");
    }
}

#[test]
fn a_tokenizer_has_to_fit_its_model() {
    let place = Place::new();
    fs::create_dir(place.path("hf")).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/reference/hf_mixtral/model");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(Path::new(source).join(file), place.path("hf").join(file)).unwrap();
    }
    let message = place.refuse("generate --model hf --prompt a");
    assert!(
        message.contains("tokenizer.json") && message.contains("--tokenizer FILE"),
        "{message}"
    );
    for tokenizer in ["byte", &format!("{TINY_MIXTRAL}/tokenizer.json")] {
        let message = place.refuse(&format!("generate --model hf --tokenizer {tokenizer}"));
        for words in ["tokenizer", "at most 131 tokens", " tokens)"] {
            assert!(message.contains(words), "no {words:?} in: {message}");
        }
    }
    place.write("hf/config.json", "{");
    let message = place.refuse("generate --model hf --tokenizer byte");
    assert!(message.contains("config.json is not a"), "{message}");
}
