//! Models out: in which format, whether they come back bit for bit, and whether transformers computes the same.

mod models;

use std::fs;
use std::path::Path;
use std::process::Command;

use burn::tensor::{Device, Int, Tensor, TensorData};
use hybridnorm_core::{Decoder, DecoderConfig};
use hybridnorm_interop::export::{Export, Format, SpecialTokens, WeightType};
use hybridnorm_interop::{InteropError, Pretrained, TensorFolder, Tensors};
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};
use hybridnorm_testing::{any_device, apply, every_device, parameters, python, values};
use models::{VOCAB, ours, theirs, trained};
use serde_json::{Value, json};

const GREEDY: usize = 12;

fn export(
    dir: &Path,
    config: &ModelConfig,
    model: &Decoder<FeedForwardLayer>,
    dtype: WeightType,
    max_shard: u64,
) -> Export {
    let tokens = SpecialTokens {
        begin: Some(0),
        end: vec![0],
        known: Some(VOCAB),
    };
    let export = Export::new(config, Format::Auto, None, dtype, tokens).unwrap();
    fs::create_dir_all(dir).unwrap();
    export.write(dir, model, max_shard).unwrap();
    export
}

fn logits(model: &Decoder<FeedForwardLayer>, ids: &[Vec<i64>], device: &Device) -> Vec<f64> {
    let shape = [ids.len(), ids[0].len()];
    let ids = TensorData::new(ids.concat(), shape);
    values(model.forward(Tensor::<2, Int>::from_data(ids, device)))
}

/// Without a cache, among the tokenizer's own tokens.
fn greedy(model: &Decoder<FeedForwardLayer>, prompt: &[i64], device: &Device) -> Vec<i64> {
    let mut ids = prompt.to_vec();
    for _ in 0..GREEDY {
        let all = logits(model, &[ids.clone()], device);
        let rows = all.len() / ids.len();
        let last = &all[all.len() - rows..][..VOCAB];
        let best = (0..VOCAB)
            .max_by(|a, b| last[*a].total_cmp(&last[*b]))
            .unwrap();
        ids.push(best as i64);
    }
    ids.split_off(prompt.len())
}

fn ids() -> Vec<Vec<i64>> {
    let sequence = |seed: i64| {
        (0..20)
            .map(|i| (seed + i * i * 7 + i) % VOCAB as i64)
            .collect()
    };
    vec![sequence(3), sequence(41)]
}

/// Every model comes back from its folder as it was, to the last bit: under its own architecture, in one file and in many.
#[test]
fn a_folder_is_the_model_bit_for_bit() {
    let device = any_device();
    let place = tempfile::tempdir().unwrap();
    for (name, config) in ours().into_iter().chain(theirs()) {
        let model = trained(&config, &device);
        for max_shard in [u64::MAX, 10_000] {
            let dir = place.path().join(format!("{name}-{max_shard}"));
            export(&dir, &config, &model, WeightType::F32, max_shard);
            assert_eq!(
                dir.join("model.safetensors.index.json").is_file(),
                max_shard == 10_000
            );
            let folder = Pretrained::open(&dir).unwrap();
            assert_eq!(
                parameters(&folder.load(&device).unwrap()),
                parameters(&model),
                "{name}"
            );
        }
    }
}

#[test]
fn each_architecture_is_found() {
    for (name, config) in theirs() {
        let export = Export::new(
            &config,
            Format::Auto,
            None,
            WeightType::F32,
            SpecialTokens::default(),
        )
        .unwrap();
        let model_type = name.split('-').next().unwrap();
        assert_eq!(export.architecture().model_type, model_type, "{name}");
        assert!(!export.needs_code());
    }
    for (name, config) in ours() {
        let export = Export::new(
            &config,
            Format::Auto,
            None,
            WeightType::F32,
            SpecialTokens::default(),
        )
        .unwrap();
        assert!(export.needs_code(), "{name}");
        let refusal = Export::new(
            &config,
            Format::HuggingFace,
            None,
            WeightType::F32,
            SpecialTokens::default(),
        );
        let error = refusal.unwrap_err();
        assert!(matches!(error, InteropError::Unsupported { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("no architecture of transformers"),
            "{error}"
        );
    }
}

/// Of several that compute the same, the one that a model came from is taken; one that does not compute it is not.
#[test]
fn a_model_goes_home() {
    let (_, llama) = theirs().remove(0);
    let plain = DecoderConfig {
        attention_bias: Some(false),
        ..llama.decoder
    };
    for (first, found) in [
        (None, "llama"),
        (Some("mistral"), "mistral"),
        (Some("olmo2"), "llama"),
        (Some("hybridnorm"), "llama"),
    ] {
        let tokens = SpecialTokens::default();
        let config = plain.clone().into();
        let export = Export::new(&config, Format::Auto, first, WeightType::F32, tokens).unwrap();
        assert_eq!(export.architecture().model_type, found, "{first:?}");
    }
}

/// A published file goes in and out again: the same names, shapes and bytes.
#[test]
fn an_imported_folder_comes_out_as_it_was() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../hybridnorm-train/reference/hf_mixtral/model");
    let device = any_device();
    let folder = Pretrained::open(&reference).unwrap();
    let place = tempfile::tempdir().unwrap();
    let model = folder.load(&device).unwrap();
    let export = export(
        place.path(),
        folder.config(),
        &model,
        WeightType::F32,
        u64::MAX,
    );
    assert_eq!(export.architecture().model_type, "mixtral");
    let (before, after) = (folder.tensors(), TensorFolder::open(place.path()).unwrap());
    assert_eq!(before.names(), after.names());
    for name in before.names() {
        let (before, after) = (before.view(&name).unwrap(), after.view(&name).unwrap());
        assert_eq!(
            (before.dtype, before.shape, before.bytes),
            (after.dtype, after.shape, after.bytes),
            "{name}"
        );
    }
}

#[test]
fn half_precision_rounds_every_number_once() {
    let device = any_device();
    let place = tempfile::tempdir().unwrap();
    let (_, config) = ours().remove(0);
    let model = trained(&config, &device);
    let dir = place.path().join("bf16");
    export(&dir, &config, &model, WeightType::Bf16, u64::MAX);
    let folder = Pretrained::open(&dir).unwrap();
    let full = parameters(&model);
    for (path, values) in parameters(&folder.load(&device).unwrap()) {
        let rounded = full[&path]
            .iter()
            .map(|x| f64::from(WeightType::Bf16.round(*x as f32)));
        assert!(rounded.eq(values), "{path}");
    }
    let config: Value =
        serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["torch_dtype"], "bfloat16");
}

#[test]
fn what_is_no_number_is_not_written() {
    let device = any_device();
    let place = tempfile::tempdir().unwrap();
    let (_, config) = ours().remove(0);
    let mut model = trained(&config, &device);
    model.embedding.weight = model.embedding.weight.map(|weight| weight / 0.0);
    let export = Export::new(
        &config,
        Format::Auto,
        None,
        WeightType::F32,
        SpecialTokens::default(),
    )
    .unwrap();
    let error = export.write(place.path(), &model, u64::MAX).unwrap_err();
    assert!(
        error.to_string().contains("\"model.embed_tokens.weight\""),
        "{error}"
    );
    assert!(error.to_string().contains("not finite"), "{error}");
}

/// HybridNorm, HybridNorm* with experts, Post-Norm with LayerNorm and biases, and Llama.
#[apply(every_device!)]
fn transformers_computes_the_same(#[case] device: &Device) {
    let models = ours()
        .into_iter()
        .take(3)
        .chain(theirs().into_iter().take(1));
    in_transformers(models.collect(), device);
}

/// Every other placement, option and architecture.
#[test]
fn transformers_computes_all_the_others() {
    let models = ours()
        .into_iter()
        .skip(3)
        .chain(theirs().into_iter().skip(1));
    in_transformers(models.collect(), &any_device());
}

/// transformers loads each folder, computes the same logits, loss and greedy text, with and without its cache; what it writes then is
/// read here again.
fn in_transformers(models: Vec<(String, ModelConfig)>, device: &Device) {
    let Some(python) = python(env!("CARGO_TARGET_TMPDIR")) else {
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export/compare.py"));
    // Code of remote models is copied there.
    command.env("HF_HOME", place.path().join("home"));
    command.env("HF_HUB_OFFLINE", "1");
    let mut folders = Vec::new();
    for (name, config) in models {
        let model = trained(&config, device);
        let dir = place.path().join(name);
        export(&dir, &config, &model, WeightType::F32, 100_000);
        let (ids, prompt) = (ids(), [5, 17, 2]);
        let found = logits(&model, &ids, device);
        let expected = json!({
            "ids": ids, "logits": found, "prompt": prompt, "greedy": greedy(&model, &prompt, device),
        });
        fs::write(dir.join("expected.json"), expected.to_string()).unwrap();
        command.arg(&dir);
        folders.push((dir.join("again"), model));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("{said}");
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for (dir, model) in folders {
        let again = Pretrained::open(&dir).unwrap().load(device).unwrap();
        assert_eq!(parameters(&again), parameters(&model), "{}", dir.display());
    }
}
