//! The page of `examples/web`, in a browser: what it writes is what `generate` writes.
//!
//! `cargo xtask web` builds the page; where it did not, or could not, these tests say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::browser::{Browser, OWN, complaints};
use crate::place::Place;

/// Where the built page lies.
const PAGE: &str = "HYBRIDNORM_WEB_PAGE";
/// What the visitor lets the models continue, and by how much.
const PROMPT: &str = "/// Returns the ";
const TOKENS: usize = 40;
/// How it draws where it does not take the most likely token.
const TEMPERATURE: f64 = 0.8;
const SEED: u64 = 7;
/// No visit is longer.
const LIMIT: Duration = Duration::from_secs(300);

/// What the visitor saw.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Seen {
    failure: Option<String>,
    reason: String,
    gpu: bool,
    texts: BTreeMap<String, String>,
    drawn: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    pictures: BTreeMap<String, Vec<String>>,
    status: BTreeMap<String, String>,
    cut: Option<String>,
    without: Option<String>,
    field: Option<String>,
    shape: Option<String>,
    own: String,
    stopped: String,
    error: String,
}

/// A visit of the page, and what Chromium has to say about it.
struct Visit {
    seen: Seen,
    complaints: Vec<String>,
    asked: Vec<String>,
    address: String,
}

fn page() -> Option<PathBuf> {
    match std::env::var_os(PAGE) {
        Some(page) => Some(page.into()),
        None => {
            println!("SKIPPED: {PAGE} does not name a page that `cargo xtask web` built");
            None
        }
    }
}

#[test]
fn the_page_writes_what_generate_writes() {
    let (Some(page), Some(browser)) = (page(), Browser::find()) else {
        return;
    };
    let visit = visit(&browser, &page, false, &["--disable-gpu"]);
    let seen = visit.seen;
    // What Chromium says of itself when a page asks for an adapter and there is none.
    let mut complaints = visit.complaints;
    complaints.retain(|line| !line.contains("No available adapters."));
    assert_eq!(complaints, [""; 0]);
    let strangers: Vec<&String> = visit
        .asked
        .iter()
        .filter(|address| {
            !address.starts_with(&visit.address) && !OWN.iter().any(|own| address.contains(own))
        })
        .filter(|address| address.starts_with("http"))
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");

    let models = models(&page);
    assert!(models.len() > 1);
    for name in &models {
        assert_eq!(seen.texts[name], native(&page, name, 0.0), "{name}");
        let drawn = native(&page, name, TEMPERATURE);
        assert_eq!(seen.drawn[name], drawn, "{name}");
        assert_eq!(&seen.names[name], name);
        assert!(
            seen.status[name].contains("tokens/s"),
            "{}",
            seen.status[name]
        );
        println!("{name}, CPU: {}", seen.status[name]);
    }
    // Another placement, another picture.
    let different: BTreeSet<_> = seen.pictures.values().collect();
    assert_eq!(different.len(), models.len());
    let drawn = |name: &str, what: &str| seen.pictures[name].concat().matches(what).count();
    // HybridNorm* (eq. 7): the inputs of both sublayers of the first block, and the stream at the feed-forward layer of the others.
    for (name, blocks, norms) in [("hybrid-star", 2, 3), ("pre", 1, 2)] {
        assert_eq!(seen.pictures[name].len(), blocks, "{name}");
        assert_eq!(drawn(name, "class=\"norm\""), norms, "{name}");
    }

    // A folder of one's own, whole and not.
    assert_eq!(seen.own, native(&page, &models[0], 0.0));
    let has = |message: &Option<String>, words: &[&str]| {
        let message = message.as_deref().unwrap_or("no message");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    has(&seen.cut, &["model.safetensors is not a safetensors file"]);
    has(&seen.without, &["no tokenizer.json"]);
    has(&seen.field, &["norm_dropout"]);
    has(&seen.shape, &["shape", "the model needs"]);
    assert!(seen.stopped.contains("stopped"), "{}", seen.stopped);

    // Without an adapter the page says why there is no GPU.
    assert!(!seen.gpu);
    assert!(seen.reason.contains("no adapter"), "{}", seen.reason);
}

#[test]
fn the_page_writes_the_same_on_a_gpu() {
    let (Some(page), Some(browser)) = (page(), Browser::find()) else {
        return;
    };
    // An adapter in software, that Chromium brings along.
    let flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
    let visit = visit(&browser, &page, true, &flags);
    if !visit.seen.gpu {
        println!("SKIPPED: Chromium has no WebGPU here {}", visit.seen.reason);
        return;
    }
    let (name, text) = visit.seen.texts.iter().next().unwrap();
    assert_eq!(text, &native(&page, name, 0.0), "{}", visit.seen.error);
    println!("{name}, GPU: {}", visit.seen.status[name]);
}

/// The models of the page, in its order.
fn models(page: &Path) -> Vec<String> {
    let index = fs::read(page.join("models/index.json")).unwrap();
    let index: Vec<Value> = serde_json::from_slice(&index).unwrap();
    let names = index.iter().map(|model| model["name"].as_str().unwrap());
    names.map(str::to_string).collect()
}

/// What `generate` prints.
fn native(page: &Path, name: &str, temperature: f64) -> String {
    let model = page.join("models").join(name);
    let numbers = [TOKENS as f64, temperature, SEED as f64].map(|number| number.to_string());
    let [tokens, temperature, seed] = &numbers;
    let place = Place::new();
    let output = place
        .command("generate --model")
        .arg(model)
        .args([
            "--prompt",
            PROMPT,
            "--temperature",
            temperature,
            "--seed",
            seed,
        ])
        .args(["--tokens", tokens, "--device", "flex"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.strip_suffix('\n').unwrap().to_string()
}

/// Lets Chromium visit the page, and waits until it has gone.
fn visit(browser: &Browser, page: &Path, gpu: bool, flags: &[&str]) -> Visit {
    let wishes = json!({
        "prompt": PROMPT, "tokens": TOKENS, "temperature": TEMPERATURE, "seed": SEED, "gpu": gpu,
    });
    let (address, result) = serve(page.to_path_buf(), wishes);
    let mut command = browser.command(&format!("{address}/drive.html"));
    command
        .args(flags)
        .args(["--dump-dom", "--window-size=1200,1500"]);
    let err = tempfile::tempfile().unwrap();
    command
        .stdout(Stdio::null())
        .stderr(err.try_clone().unwrap());
    let mut chromium = command.spawn().unwrap();
    let began = Instant::now();
    while chromium.try_wait().unwrap().is_none() {
        if began.elapsed() > LIMIT {
            let _ = chromium.kill();
            let _ = chromium.wait();
            panic!("the visit took longer than {LIMIT:?}: {}", text_of(err));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let err = text_of(err);
    let seen: Seen = match result.try_recv() {
        Ok(seen) => serde_json::from_slice(&seen).unwrap(),
        Err(_) => panic!("Chromium left before the visit was over: {err}"),
    };
    assert_eq!(seen.failure, None, "{err}");
    Visit {
        seen,
        complaints: complaints(&err),
        asked: browser.asked(),
        address,
    }
}

fn text_of(mut file: fs::File) -> String {
    use std::io::Seek;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Serves the page, and the visitor's own. Gives its address, and what the visitor will tell.
fn serve(page: PathBuf, wishes: Value) -> (String, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tell, result) = channel();
    let held = Arc::new(Mutex::new(Vec::new()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (page, wishes, tell, held) =
                (page.clone(), wishes.clone(), tell.clone(), held.clone());
            thread::spawn(move || answer(stream, &page, &wishes, &tell, &held));
        }
    });
    (address, result)
}

/// Answers one request. `/hold` waits until there is a result.
fn answer(
    stream: TcpStream,
    page: &Path,
    wishes: &Value,
    tell: &Sender<Vec<u8>>,
    held: &Mutex<Vec<TcpStream>>,
) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_string();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    match path.as_str() {
        "/hold" => held.lock().unwrap().push(stream),
        "/result" => {
            tell.send(body).ok()?;
            reply(&stream, "text/plain", b"")?;
            for held in held.lock().unwrap().drain(..) {
                // A picture of one pixel.
                let pixel = "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>";
                reply(&held, "image/svg+xml", pixel.as_bytes())?;
            }
        }
        "/wishes" => reply(&stream, "application/json", wishes.to_string().as_bytes())?,
        "/drive.html" => reply(&stream, "text/html", include_bytes!("web/drive.html"))?,
        "/drive.js" => reply(&stream, "text/javascript", include_bytes!("web/drive.js"))?,
        path => {
            let kind = match path.rsplit_once('.').map(|(_, ending)| ending) {
                Some("html") => "text/html",
                Some("js") => "text/javascript",
                Some("css") => "text/css",
                Some("json") => "application/json",
                Some("wasm") => "application/wasm",
                _ => "application/octet-stream",
            };
            match fs::read(page.join(path.trim_start_matches('/'))) {
                Ok(bytes) => reply(&stream, kind, &bytes)?,
                Err(_) => {
                    let none =
                        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    (&stream).write_all(none.as_bytes()).ok()?;
                }
            }
        }
    }
    Some(())
}

fn reply(mut stream: &TcpStream, kind: &str, bytes: &[u8]) -> Option<()> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(bytes).ok()
}
