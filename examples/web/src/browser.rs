//! What JavaScript sees: models that are opened from files in memory, and the texts that they write.

use core::cell::{Cell, RefCell};
use core::fmt::Display;
use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Device;
use hybridnorm_core::Decoder;
use hybridnorm_generate::{Edges, Ending, Event, Generator, Sampling, Settings};
use hybridnorm_interop::Pretrained;
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};
use hybridnorm_tokenizer::Tokenizer;
use js_sys::{Function, Promise, Uint8Array};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::picture::pictures;

const CONFIG: &str = "config.json";
const GENERATION: &str = "generation_config.json";
const TOKENIZER: &str = "tokenizer.json";

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    /// Opened once, and for good.
    static GPU: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// Remembers what a panic says: the browser only hears that something was unreachable.
#[wasm_bindgen(start)]
pub fn start() {
    std::panic::set_hook(Box::new(|panic| PANIC.set(panic.to_string())));
}

/// What the last panic said; empty where there was none.
#[wasm_bindgen]
pub fn last_panic() -> String {
    PANIC.with_borrow(String::clone)
}

/// Files of an exported folder, by name.
#[wasm_bindgen]
#[derive(Default)]
pub struct Files(BTreeMap<String, Vec<u8>>);

#[wasm_bindgen]
impl Files {
    /// None yet.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    pub fn add(&mut self, name: String, bytes: &Uint8Array) {
        self.0.insert(name, bytes.to_vec());
    }
}

/// A model, its tokenizer, and where it computes.
#[wasm_bindgen]
pub struct Model {
    decoder: Decoder<FeedForwardLayer>,
    tokenizer: Tokenizer,
    edges: Edges,
    config: ModelConfig,
    architecture: &'static str,
}

/// What a text is written with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    prompt: String,
    tokens: usize,
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    seed: u64,
}

#[wasm_bindgen]
impl Model {
    /// Reads a Hugging Face folder, as `hybridnorm-train export` writes it, for `cpu` or `gpu`.
    pub async fn open(files: Files, device: String) -> Result<Model, JsError> {
        let mut files = files.0;
        let device = open_device(&device).await?;
        let config = object(&files, CONFIG)?;
        let generation = match files.contains_key(GENERATION) {
            true => object(&files, GENERATION)?,
            false => Map::new(),
        };
        let tokenizer = files.remove(TOKENIZER).ok_or_else(|| missing(TOKENIZER))?;
        let tokenizer = Tokenizer::from_bytes(tokenizer, TOKENIZER.as_ref()).map_err(failed)?;
        let pretrained = Pretrained::in_memory(files).map_err(failed)?;
        let config_of = pretrained.config().clone();
        if config_of.sparse.is_some() && GPU.with_borrow(|gpu| gpu.as_ref() == Some(&device)) {
            let reason = "sparse experts are chosen on the CPU, and a browser lets nobody wait for its GPU: choose the CPU";
            return Err(JsError::new(reason));
        }
        let model = Self {
            decoder: pretrained.load(&device).map_err(failed)?,
            edges: Edges::of_published(&tokenizer, &config, &generation).map_err(failed)?,
            tokenizer,
            config: config_of,
            architecture: pretrained.architecture().model_type,
        };
        model.generator().check_vocabulary().map_err(failed)?;
        Ok(model)
    }

    /// What the page shows of the model, as JSON.
    pub fn facts(&self) -> Result<String, JsError> {
        let c = &self.config.decoder;
        let blocks = pictures(&c.placement, c.n_layers).map_err(failed)?;
        let blocks: Vec<Value> = blocks
            .into_iter()
            .map(|block| json!({"layers": block.layers, "equation": block.equation, "svg": block.svg}))
            .collect();
        let facts = json!({
            "architecture": self.architecture,
            "placement": c.placement.to_string(),
            "summary": c.placement.row().map(|row| row.summary),
            "parameters": self.decoder.num_params(),
            "layers": c.n_layers,
            "width": c.d_model,
            "heads": c.n_heads,
            "context": c.max_seq_len,
            "embedding_norm": c.has_embedding_norm(),
            "final_norm": c.has_final_norm().map_err(failed)?,
            "blocks": blocks,
        });
        Ok(facts.to_string())
    }

    /// Writes a text. `emit` is given each piece and says whether to go on, perhaps later (a promise). Gives figures, as JSON.
    pub async fn write(&self, request: String, emit: Function) -> Result<String, JsError> {
        let request: Request = serde_json::from_str(&request).map_err(failed)?;
        let settings = Settings {
            tokens: request.tokens,
            sampling: Sampling {
                temperature: request.temperature,
                top_k: request.top_k,
                top_p: request.top_p,
                seed: request.seed,
                ..Sampling::default()
            },
            ..Settings::default()
        };
        let prompt = self.edges.prompt(&self.tokenizer, &request.prompt);
        let (prompts, generator) = ([prompt.map_err(failed)?], self.generator());
        let ending: Cell<Option<Ending>> = Cell::new(None);
        let emit = async |_, event| match event {
            Event::Text(text) => goes_on(&emit, &text).await,
            Event::Ended { ending: why, .. } => {
                ending.set(Some(why));
                true
            }
        };
        let report = generator.run_async(&prompts, &settings, emit).await;
        let report = report.map_err(failed)?;
        let figures = json!({
            "ending": ending.get(),
            "prompt_tokens": report.prompt_tokens,
            "prefill_seconds": report.prefill.as_secs_f64(),
            "tokens": report.tokens,
            "decoded": report.decoded,
            "decode_seconds": report.decode.as_secs_f64(),
        });
        Ok(figures.to_string())
    }

    fn generator(&self) -> Generator<'_, FeedForwardLayer> {
        Generator {
            model: &self.decoder,
            tokenizer: &self.tokenizer,
            window: self.config.decoder.max_seq_len,
            ends: &self.edges.ends,
        }
    }
}

async fn open_device(name: &str) -> Result<Device, JsError> {
    match name {
        "cpu" => Ok(Device::flex()),
        "gpu" => {
            if let Some(device) = GPU.with_borrow(Option::clone) {
                return Ok(device);
            }
            let device = Device::wgpu_options().init_async().await;
            let device = device.map_err(|error| JsError::new(&format!("WebGPU: {error}")))?;
            GPU.set(Some(device.clone()));
            Ok(device)
        }
        other => Err(JsError::new(&format!(
            "device = {other}: expected cpu or gpu"
        ))),
    }
}

/// What JavaScript answers to a piece of text.
async fn goes_on(emit: &Function, text: &str) -> bool {
    let Ok(answer) = emit.call1(&JsValue::NULL, &text.into()) else {
        return false;
    };
    match answer.dyn_into::<Promise>() {
        Ok(later) => JsFuture::from(later).await.is_ok_and(|now| now.is_truthy()),
        Err(now) => now.is_truthy(),
    }
}

fn object(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<Map<String, Value>, JsError> {
    let text = files.get(name).ok_or_else(|| missing(name))?;
    serde_json::from_slice(text)
        .map_err(|error| JsError::new(&format!("{name} is not a JSON object: {error}")))
}

fn missing(name: &str) -> JsError {
    JsError::new(&format!(
        "the folder has no {name}: give one that `hybridnorm-train export` wrote, or another of transformers with a {TOKENIZER}"
    ))
}

fn failed(error: impl Display) -> JsError {
    JsError::new(&error.to_string())
}
