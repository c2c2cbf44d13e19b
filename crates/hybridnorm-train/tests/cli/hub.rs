//! `hf:owner/name`, against a server in this process that speaks the Hub's paths.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::place::{Place, stderr};
use hybridnorm_train::hub::{Hub, HubError, Reference, Settings, Want};
use serde_json::{Value, json};
use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository `org/tiny` with one commit, and what the server does wrong.
#[derive(Default)]
struct State {
    files: BTreeMap<&'static str, Vec<u8>>,
    /// Bytes after which each of the next answers with weights breaks off.
    cuts: Vec<usize>,
    /// Answers with the whole file whatever part is asked for.
    ignores_ranges: bool,
    /// What a file is sent with in place of its content.
    forged: Option<Vec<u8>>,
    /// What was asked: path, Range, Authorization.
    asked: Vec<(String, Option<String>, Option<String>)>,
}

struct Mirror {
    endpoint: String,
    state: Arc<Mutex<State>>,
    dir: TempDir,
}

impl Mirror {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let files = BTreeMap::from([
            ("config.json", br#"{"model_type": "llama"}"#.to_vec()),
            ("tokenizer.json", b"{}".to_vec()),
            ("pytorch_model.bin", b"not wanted".to_vec()),
            (
                "model.safetensors",
                (0..300_000u32).map(|n| (n * n % 251) as u8).collect(),
            ),
        ]);
        let state = Arc::new(Mutex::new(State {
            files,
            ..State::default()
        }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        let dir = tempfile::tempdir().unwrap();
        Self {
            endpoint,
            state,
            dir,
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn settings(&self) -> Settings {
        Settings {
            endpoint: self.endpoint.clone(),
            cache: self.dir.path().join("hub"),
            token: None,
            offline: None,
        }
    }

    fn fetch(&self, spec: &str, want: Want) -> Result<std::path::PathBuf, HubError> {
        let reference = Reference::parse(spec)?.unwrap();
        let hub = Hub::new(self.settings()).with_pause(Duration::from_millis(1));
        hub.fetch(&reference, want)
    }

    /// The parts of the weights that were asked for, and forgets what was asked.
    fn ranges(&self) -> Vec<Option<String>> {
        let asked = std::mem::take(&mut self.state.lock().unwrap().asked);
        let weights = asked
            .into_iter()
            .filter(|(path, ..)| path.starts_with("/cdn/"));
        weights.map(|(_, range, _)| range).collect()
    }

    fn content(&self, name: &str) -> Vec<u8> {
        self.state.lock().unwrap().files[name].clone()
    }
}

/// Answers one request.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let mut headers = headers.iter().filter_map(|line| line.split_once(": "));
        headers
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_string())
    };
    let path = request.split(' ').nth(1).unwrap().to_string();
    let mut state = state.lock().unwrap();
    state
        .asked
        .push((path.clone(), header("range"), header("authorization")));
    let status = |code: &str, more: &str| format!("HTTP/1.1 {code}\r\nConnection: close\r\n{more}");
    let plain = |head: String, body: &[u8]| {
        let mut answer = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
        answer.extend(body);
        answer
    };
    let answer = if let Some(revision) = path.strip_prefix("/api/models/org/tiny/revision/") {
        let revision = revision.split('?').next().unwrap();
        match ["main", "v1", "refs%2Fpr%2F1", COMMIT].contains(&revision) {
            true => plain(
                status("200 OK", ""),
                listing(&state.files).to_string().as_bytes(),
            ),
            false => plain(
                status("404 Not Found", "X-Error-Code: RevisionNotFound\r\n"),
                b"",
            ),
        }
    } else if path.starts_with("/api/models/org/gated/") {
        plain(status("403 Forbidden", "X-Error-Code: GatedRepo\r\n"), b"")
    } else if path.starts_with("/api/models/") {
        plain(
            status("401 Unauthorized", "X-Error-Code: RepoNotFound\r\n"),
            b"",
        )
    } else if let Some(name) = path.strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/")) {
        // Large files lie on another server.
        match name.ends_with(".safetensors") {
            true => plain(
                status("302 Found", &format!("Location: /cdn/{name}\r\n")),
                b"",
            ),
            false => plain(status("200 OK", ""), &state.files[name]),
        }
    } else if let Some(name) = path.strip_prefix("/cdn/") {
        let content = state
            .forged
            .clone()
            .unwrap_or_else(|| state.files[name].clone());
        let start = header("range").and_then(|range| {
            range["bytes=".len()..]
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        let start = start.filter(|_| !state.ignores_ranges);
        let from = start.unwrap_or(0);
        let head = match start {
            Some(start) => {
                let range = format!(
                    "Content-Range: bytes {start}-{}/{}\r\n",
                    content.len() - 1,
                    content.len()
                );
                status("206 Partial Content", &range)
            }
            None => status("200 OK", ""),
        };
        let head_only = plain(head, &content[from..]);
        match state.cuts.pop() {
            Some(cut) => head_only[..head_only.len() - (content.len() - from) + cut].to_vec(),
            None => head_only,
        }
    } else {
        plain(status("404 Not Found", ""), b"")
    };
    drop(state);
    let _ = stream.write_all(&answer);
}

/// As the Hub lists a commit.
fn listing(files: &BTreeMap<&'static str, Vec<u8>>) -> Value {
    let files = files.iter().map(|(name, content)| {
        let hash = ring::digest::digest(&ring::digest::SHA256, content);
        let hash: String = hash
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let mut file = json!({"rfilename": name, "size": content.len(), "blobId": hash[..40]});
        if name.ends_with(".safetensors") {
            file["lfs"] = json!({"sha256": hash, "size": content.len(), "pointerSize": 130});
        }
        file
    });
    json!({"id": "org/tiny", "sha": COMMIT, "siblings": files.collect::<Vec<_>>()})
}

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
fn a_download_that_breaks_off_goes_on_from_there() {
    let mirror = Mirror::new();
    mirror.change(|state| state.cuts = vec![50_000, 100_000]);
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
    let expected = [
        None,
        Some("bytes=100000-".to_string()),
        Some("bytes=150000-".to_string()),
    ];
    assert_eq!(mirror.ranges(), expected);
}

#[test]
fn so_does_one_that_was_given_up() {
    let mirror = Mirror::new();
    // The first brings something, five bring nothing.
    mirror.change(|state| state.cuts = vec![0, 0, 0, 0, 0, 70_000]);
    let error = mirror.fetch("hf:org/tiny", Want::Model).unwrap_err();
    assert!(
        matches!(
            error,
            HubError::BrokenOff {
                got: 70_000,
                size: 300_000,
                ..
            }
        ),
        "{error}"
    );
    mirror.change(|state| state.cuts.clear());
    mirror.ranges();
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(mirror.ranges(), [Some("bytes=70000-".to_string())]);
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
}

#[test]
fn a_server_that_cannot_skip_sends_all_again() {
    let mirror = Mirror::new();
    mirror.change(|state| {
        state.cuts = vec![90_000];
        state.ignores_ranges = true;
    });
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
}

#[test]
fn what_is_not_what_was_announced_is_removed() {
    let mirror = Mirror::new();
    mirror.change(|state| state.forged = Some(vec![7; 300_000]));
    let error = mirror.fetch("hf:org/tiny", Want::Model).unwrap_err();
    assert!(error.to_string().contains("SHA-256"), "{error}");
    mirror.change(|state| state.forged = None);
    let dir = mirror.fetch("hf:org/tiny", Want::Model).unwrap();
    assert_eq!(
        fs::read(dir.join("model.safetensors")).unwrap(),
        mirror.content("model.safetensors")
    );
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
