//! `hf:owner/name`, against a server in this process that speaks the Hub's paths.

mod broken_off;
mod mirror;

use std::fs;
use std::path::Path;

use hybridnorm_train::hub::{Hub, HubError, Reference, Settings, Want};
use serde_json::json;

use super::place::{Place, stderr};
use mirror::{COMMIT, Mirror};

#[test]
fn a_model_comes_once_and_is_found_again() {
    let mirror = Mirror::new();
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert!(dir.ends_with(format!("models--org--tiny/snapshots/{COMMIT}")));
    for name in ["config.json", "tokenizer.json", "model.safetensors"] {
        assert_eq!(
            fs::read(dir.join(name)).unwrap(),
            mirror.content(name),
            "{name}"
        );
    }
    assert!(!dir.join("pytorch_model.bin").exists());
    assert_eq!(mirror.ranges(), [None]);
    // The second time nothing but the commit is asked for, and for a commit by its name not even that.
    assert_eq!(
        mirror.fetch("hf:org/tiny@refs/pr/1", Want::Model).unwrap(),
        dir
    );
    assert_eq!(mirror.state.lock().unwrap().asked.len(), 1);
    assert_eq!(
        mirror
            .fetch(&format!("hf:org/tiny@{COMMIT}"), Want::Model)
            .unwrap(),
        dir
    );
    assert_eq!(mirror.state.lock().unwrap().asked.len(), 1);
}

#[test]
fn a_plan_needs_no_weights() {
    let mirror = Mirror::new();
    let dir = mirror.fetch("hf:org/tiny", Want::Config).unwrap();
    assert!(dir.join("config.json").is_file() && !dir.join("model.safetensors").exists());
}

#[test]
fn what_is_not_there_is_named() {
    let mirror = Mirror::new();
    let said = |spec: &str, words: &[&str]| {
        let error = mirror.fetch(spec, Want::Model).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
        assert!(!error.contains('\n'), "{error}");
    };
    said(
        "hf:org/nothing",
        &["org/nothing", "main", &mirror.endpoint, "HF_TOKEN"],
    );
    said("hf:org/tiny@v9", &["org/tiny", "\"v9\"", "no revision"]);
    said("hf:org/gated", &["hf:org/gated@main", "terms", "HF_TOKEN"]);
    mirror.change(|state| {
        state.files.remove("model.safetensors");
    });
    said(
        "hf:org/tiny",
        &["no model.safetensors", "pytorch_model.bin"],
    );
}

#[test]
fn shards_come_as_the_index_names_them() {
    let mirror = Mirror::new();
    mirror.change(|state| {
        let weights = state.files.remove("model.safetensors").unwrap();
        let index = json!({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}});
        state.files.insert("model.safetensors.index.json", index.to_string().into_bytes());
        state.files.insert("model-1.safetensors", weights);
        state.files.insert("model-2.safetensors", vec![1; 9]);
    });
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(fs::read(dir.join("model-2.safetensors")).unwrap(), [1; 9]);
    assert_eq!(mirror.ranges().len(), 2);
    mirror.change(|state| {
        let index = json!({"weight_map": {"a": "../../outside.safetensors"}});
        state.files.insert(
            "model.safetensors.index.json",
            index.to_string().into_bytes(),
        );
    });
    let other = Mirror {
        dir: tempfile::tempdir().unwrap(),
        ..mirror
    };
    assert!(matches!(
        other.fetch("hf:org/tiny", Want::Model),
        Err(HubError::Damaged { .. })
    ));
}

#[test]
fn a_token_stays_with_its_server() {
    let mirror = Mirror::new();
    let settings = Settings {
        token: Some("secret".to_string()),
        ..mirror.settings()
    };
    let reference = Reference::parse("hf:org/tiny").unwrap().unwrap();
    Hub::new(settings).fetch(&reference, Want::Config).unwrap();
    let asked = &mirror.state.lock().unwrap().asked;
    assert!(
        asked
            .iter()
            .all(|(_, _, token)| token.as_deref() == Some("Bearer secret"))
    );
}

#[test]
fn without_a_connection_what_is_kept_has_to_do() {
    let mirror = Mirror::new();
    let dir = mirror.fetch("hf:org/tiny@v1", Want::Config).unwrap();
    let fetch = |settings: Settings, spec: &str, want| {
        let reference = Reference::parse(spec).unwrap().unwrap();
        Hub::new(settings).fetch(&reference, want)
    };
    // Nobody listens on port 1.
    let gone = Settings {
        endpoint: "http://127.0.0.1:1".to_string(),
        ..mirror.settings()
    };
    let offline = Settings {
        offline: Some("HF_HUB_OFFLINE"),
        ..mirror.settings()
    };
    for (settings, reason) in [(gone, "cannot be reached"), (offline, "HF_HUB_OFFLINE")] {
        assert_eq!(
            fetch(settings.clone(), "hf:org/tiny@v1", Want::Config).unwrap(),
            dir
        );
        for (spec, want) in [
            ("hf:org/tiny@v1", Want::Model),
            ("hf:org/tiny", Want::Config),
        ] {
            let error = fetch(settings.clone(), spec, want).unwrap_err().to_string();
            for word in [
                reason,
                "hf download org/tiny",
                mirror.dir.path().to_str().unwrap(),
            ] {
                assert!(error.contains(word), "no {word:?} in: {error}");
            }
        }
    }
    assert!(Path::new(&dir).is_dir());
}

/// As a user has it: a run is exported, uploaded, and used elsewhere by its name.
#[test]
fn commands_take_a_name_for_a_folder() {
    let (mirror, place) = (Mirror::new(), Place::new());
    place.succeed("--config tiny.toml --out run --placement hybrid");
    place.succeed("export run --out model --max-shard-size 20KB");
    mirror.change(|state| {
        state.files.clear();
        for entry in fs::read_dir(place.path("model")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            state.files.insert(name.leak(), fs::read(path).unwrap());
        }
    });
    let run = |args: &str, offline: &str| {
        let mut command = place.command(args);
        command.env("HF_ENDPOINT", &mirror.endpoint);
        command.env("HF_HOME", mirror.dir.path());
        command
            .env_remove("HF_HUB_CACHE")
            .env("HF_HUB_OFFLINE", offline);
        command.output().unwrap()
    };
    let said = |args: &str, offline: &str| {
        let output = run(args, offline);
        assert!(output.status.success(), "{args}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let plan = said("plan --hf hf:org/tiny", "0");
    assert!(
        plan.contains("HybridNormForCausalLM") && plan.contains("not fetched"),
        "{plan}"
    );
    assert!(mirror.ranges().is_empty(), "a plan fetched weights");
    let generate = "--prompt The --tokens 20 --temperature 0";
    let text = said(&format!("generate --model hf:org/tiny {generate}"), "0");
    assert_eq!(
        text,
        place.succeed(&format!("generate --model run {generate}"))
    );
    assert_eq!(
        text,
        said(&format!("generate --model hf:org/tiny {generate}"), "1")
    );
    said("import hf:org/tiny@main --out again", "1");
    assert_eq!(
        text,
        place.succeed(&format!("generate --model again {generate}"))
    );
    for (spec, words) in [
        ("hf:org/nothing", "no model org/nothing"),
        ("hf:org/tiny@v9", "no revision"),
        ("hf:tiny", "hf:owner/name"),
    ] {
        let output = run(&format!("import {spec} --out x"), "0");
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
