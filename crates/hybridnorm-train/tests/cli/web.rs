//! The page of `examples/web`, in a browser: what it writes is what `generate` writes.
//!
//! `cargo xtask web` builds the page; where it did not, or could not, these tests say so.

mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::browser::{Browser, OWN, complaints};
use crate::place::Place;
use server::serve;

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
    first: Option<String>,
    broken: Option<String>,
    mended: String,
    address: Option<String>,
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
    // What Chromium says of itself when a page asks for an adapter and there is none, and of the two answers that failed on purpose.
    let mut complaints = visit.complaints;
    let expected = ["No available adapters.", "a status of 503"];
    complaints.retain(|line| !expected.iter().any(|words| line.contains(words)));
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

    // What did not come is named, and comes when it is asked for again.
    has(&seen.first, &["hybridnorm_web_bg.wasm"]);
    has(&seen.broken, &["model.safetensors", "503"]);
    assert_eq!(seen.mended, native(&page, &models[1], 0.0));
    has(&seen.address, &["http://[", "no address"]);

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
