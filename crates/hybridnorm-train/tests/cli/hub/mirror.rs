//! A server in this process that speaks the Hub's paths, and what it may do wrong.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hybridnorm_train::hub::{Hub, HubError, Reference, Settings, Want};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A repository `org/tiny` with one commit, and what the server does wrong.
#[derive(Default)]
pub struct State {
    pub files: BTreeMap<&'static str, Vec<u8>>,
    /// Bytes after which each of the next answers with weights breaks off.
    pub cuts: Vec<usize>,
    /// Answers with the whole file whatever part is asked for.
    pub ignores_ranges: bool,
    /// What a file is sent with in place of its content.
    pub forged: Option<Vec<u8>>,
    /// What was asked: path, Range, Authorization.
    pub asked: Vec<(String, Option<String>, Option<String>)>,
}

pub struct Mirror {
    pub endpoint: String,
    pub state: Arc<Mutex<State>>,
    pub dir: TempDir,
}

impl Mirror {
    pub fn new() -> Self {
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

    pub fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub fn settings(&self) -> Settings {
        Settings {
            endpoint: self.endpoint.clone(),
            cache: self.dir.path().join("hub"),
            token: None,
            offline: None,
        }
    }

    pub fn fetch(&self, spec: &str, want: Want) -> Result<PathBuf, HubError> {
        let reference = Reference::parse(spec)?.unwrap();
        let hub = Hub::new(self.settings()).with_pause(Duration::from_millis(1));
        hub.fetch(&reference, want)
    }

    /// The parts of the weights that were asked for, and forgets what was asked.
    pub fn ranges(&self) -> Vec<Option<String>> {
        let asked = std::mem::take(&mut self.state.lock().unwrap().asked);
        let weights = asked
            .into_iter()
            .filter(|(path, ..)| path.starts_with("/cdn/"));
        weights.map(|(_, range, _)| range).collect()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
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
