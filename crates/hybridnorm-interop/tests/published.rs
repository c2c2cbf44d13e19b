//! Published folders: whole, in shards, in other types and spellings, damaged, hostile. The models are those that transformers made for
//! `verify`, which holds their numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hybridnorm_core::{Activation, RopeScaling};
use hybridnorm_interop::hugging_face::{self, ARCHITECTURES};
use hybridnorm_interop::{Dtype, InteropError, Pretrained, TensorFile};
use hybridnorm_moe::ModelConfig;
use hybridnorm_testing::{any_device, apply, every_device, parameters};
use rstest::rstest;
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

fn reference(case: &str) -> PathBuf {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hybridnorm-train/reference");
    reference.join(case).join("model")
}

/// A tensor by name: type, shape, bytes.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// A copy of a case's folder, to be changed.
struct Folder(TempDir);

impl Folder {
    fn of(case: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for entry in fs::read_dir(reference(case)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(
                entry.path(),
                folder.path(entry.file_name().to_str().unwrap()),
            )
            .unwrap();
        }
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn tensors(&self) -> Vec<Tensor> {
        let file = TensorFile::open(self.path("model.safetensors")).unwrap();
        let names = file.names();
        let tensor = |name: String| {
            let array = file.array(&name).unwrap();
            let values = array.values.iter().map(|x| *x as f32);
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (name, Dtype::F32, array.shape, bytes)
        };
        names.into_iter().map(tensor).collect()
    }

    fn write(&self, name: &str, tensors: &[Tensor]) {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (name.clone(), view)
        });
        serialize_to_file(views, None, &self.path(name)).unwrap();
    }

    fn configure(&self, change: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.path("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    }

    /// In two files, with an index.
    fn shard(&self) {
        let tensors = self.tensors();
        fs::remove_file(self.path("model.safetensors")).unwrap();
        let (first, second) = tensors.split_at(tensors.len() / 2);
        let files = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        let mut map = Map::new();
        for (file, tensors) in files.into_iter().zip([first, second]) {
            self.write(file, tensors);
            let names = tensors.iter().map(|(name, ..)| (name.clone(), file.into()));
            map.extend(names);
        }
        self.index(json!({"metadata": {"total_size": 1}, "weight_map": map}));
    }

    fn index(&self, index: Value) {
        let path = self.path("model.safetensors.index.json");
        fs::write(path, index.to_string()).unwrap();
    }

    fn open(&self) -> Result<Pretrained, InteropError> {
        Pretrained::open(self.0.path())
    }

    /// The refusal, which is one line.
    fn refusal(&self) -> String {
        let opened = self.open().and_then(|folder| folder.load(&any_device()));
        let error = opened.unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }
}

fn numbers(folder: &Folder) -> Vec<f64> {
    let model = folder.open().unwrap().load(&any_device()).unwrap();
    parameters(&model).into_values().flatten().collect()
}

#[apply(every_device!)]
fn every_architecture_is_loaded_on_every_device(#[case] device: &burn::tensor::Device) {
    let mut seen = Vec::new();
    for case in [
        "hf_llama",
        "hf_mistral",
        "hf_qwen3",
        "hf_qwen3_moe",
        "hf_mixtral",
        "hf_olmo2",
        "hf_olmoe",
        "hf_gemma2",
        "hf_gemma3",
    ] {
        let folder = Pretrained::open(reference(case)).unwrap();
        folder.check(device).unwrap();
        let model = folder.load(device).unwrap();
        let count = burn::module::Module::num_params(&model);
        assert_eq!(count, folder.config().num_params().unwrap().0, "{case}");
        let placement = &folder.config().decoder.placement;
        assert_eq!(
            placement.to_string(),
            folder.architecture().placement,
            "{case}"
        );
        seen.push(folder.architecture().model_type);
    }
    let mut rows = ARCHITECTURES.iter();
    // Gemma 3 with eyes is below, and what this project writes by itself in the tests of its export.
    let elsewhere = ["gemma3", "hybridnorm"];
    assert!(rows.all(|row| elsewhere.contains(&row.model_type) || seen.contains(&row.model_type)));
}

#[test]
fn shards_are_the_whole() {
    let folder = Folder::of("hf_qwen3_moe");
    let whole = numbers(&folder);
    folder.shard();
    assert_eq!(numbers(&folder), whole);
    assert_eq!(folder.open().unwrap().tensors().files(), 2);
}

/// Where there is no file system, files by name are read as those of a folder are, and refused as they are.
#[test]
fn a_folder_may_lie_in_memory() {
    let folder = Folder::of("hf_qwen3_moe");
    folder.shard();
    let held = || -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(folder.0.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        });
        entries.collect()
    };
    let model = Pretrained::in_memory(held()).unwrap();
    let found = parameters(&model.load(&any_device()).unwrap());
    let found: Vec<f64> = found.into_values().flatten().collect();
    assert_eq!(found, numbers(&folder));
    for name in ["config.json", "model-00002-of-00002.safetensors"] {
        let mut files = held();
        files.remove(name);
        let error = Pretrained::in_memory(files).unwrap_err().to_string();
        assert_eq!(error, format!("cannot read {name}: there is no such file"));
        let mut files = held();
        files.insert(name.to_string(), b"{".to_vec());
        let error = Pretrained::in_memory(files).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

#[rstest]
#[case(Dtype::BF16, 8)]
#[case(Dtype::F16, 11)]
fn half_types_become_f32(#[case] dtype: Dtype, #[case] bits: i32) {
    let folder = Folder::of("hf_llama");
    let whole = numbers(&folder);
    let tensors = folder.tensors().into_iter().map(|(name, _, shape, bytes)| {
        let values = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b));
        let bytes: Vec<u8> = match dtype {
            Dtype::BF16 => values
                .flat_map(|x| burn::tensor::bf16::from_f32(x).to_le_bytes())
                .collect(),
            _ => values
                .flat_map(|x| burn::tensor::f16::from_f32(x).to_le_bytes())
                .collect(),
        };
        (name, dtype, shape, bytes)
    });
    folder.write("model.safetensors", &tensors.collect::<Vec<_>>());
    let half = numbers(&folder);
    assert_ne!(half, whole);
    for (half, whole) in half.iter().zip(&whole) {
        // Half a rounding, and what f16 cannot say below its smallest normal number.
        let allowed = whole.abs() * 2f64.powi(-bits) + 2f64.powi(-25);
        assert!((half - whole).abs() <= allowed, "{half} {whole}");
    }
}

/// The language model inside a model that sees: names begin otherwise, its configuration is a part, and its eyes are left out.
#[test]
fn gemma_3_may_have_eyes() {
    let folder = Folder::of("hf_gemma3");
    let whole = numbers(&folder);
    let mut tensors = folder.tensors();
    for (name, ..) in &mut tensors {
        *name = format!("language_model.{name}");
    }
    for name in [
        "vision_tower.patch.weight",
        "multi_modal_projector.norm.weight",
    ] {
        tensors.push((name.to_string(), Dtype::F32, vec![1], vec![0; 4]));
    }
    folder.write("model.safetensors", &tensors);
    folder.configure(|config| {
        let text = std::mem::take(config);
        config.extend([
            ("model_type".to_string(), json!("gemma3")),
            ("text_config".to_string(), text.into()),
            ("vision_config".to_string(), json!({"hidden_size": 8})),
            ("mm_tokens_per_image".to_string(), json!(256)),
        ]);
    });
    assert_eq!(numbers(&folder), whole);
}

/// What transformers leaves out of a tied file may be there, if it is the same; tables that follow from the configuration may be, too.
#[test]
fn files_may_hold_what_follows() {
    let folder = Folder::of("hf_llama");
    let whole = numbers(&folder);
    let mut tensors = folder.tensors();
    let embedding = tensors.iter().find(|(name, ..)| name.contains("embed"));
    let (_, dtype, shape, bytes) = embedding.unwrap().clone();
    tensors.push(("lm_head.weight".to_string(), dtype, shape, bytes));
    let table = "model.layers.1.self_attn.rotary_emb.inv_freq".to_string();
    tensors.push((table, Dtype::F32, vec![1], vec![0; 4]));
    folder.write("model.safetensors", &tensors);
    assert_eq!(numbers(&folder), whole);
    let head = tensors
        .iter_mut()
        .find(|(name, ..)| name == "lm_head.weight");
    head.unwrap().3[0] ^= 1;
    folder.write("model.safetensors", &tensors);
    let refusal = folder.refusal();
    assert!(
        refusal.contains("tie_word_embeddings") && refusal.contains("lm_head"),
        "{refusal}"
    );
}

/// All that is wrong is named at once.
#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = Folder::of("hf_olmo2");
    let mut tensors = folder.tensors();
    tensors.retain(|(name, ..)| name != "model.layers.0.self_attn.q_norm.weight");
    for (name, dtype, shape, _) in &mut tensors {
        if name == "model.layers.1.mlp.down_proj.weight" {
            shape.reverse();
        }
        if name == "model.norm.weight" {
            *dtype = Dtype::I32;
        }
    }
    tensors.push(("model.extra".to_string(), Dtype::F32, vec![1], vec![0; 4]));
    tensors.push(("model.numbers".to_string(), Dtype::U16, vec![2], vec![0; 4]));
    folder.write("model.safetensors", &tensors);
    let refusal = folder.refusal();
    for words in [
        "\"model.layers.0.self_attn.q_norm.weight\" (for blocks.0.attention.norms.query.norm.weight) is missing",
        "\"model.layers.1.mlp.down_proj.weight\" has shape [24, 16], the model needs [16, 24]",
        "\"model.norm.weight\" holds I32, parameters are F16, BF16, F32 or F64",
        "\"model.extra\" is left over",
        "\"model.numbers\" is left over",
    ] {
        assert!(refusal.contains(words), "no {words} in: {refusal}");
    }
}

#[test]
fn values_that_are_not_finite_are_named() {
    let folder = Folder::of("hf_olmo2");
    let mut tensors = folder.tensors();
    for (name, _, _, bytes) in &mut tensors {
        if name == "model.layers.1.self_attn.k_proj.weight" {
            bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        }
    }
    folder.write("model.safetensors", &tensors);
    let error = folder.open().unwrap().load(&any_device()).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("model.layers.1.self_attn.k_proj.weight"),
        "{error}"
    );
    assert!(error.contains("not finite"), "{error}");
}

#[rstest]
#[case::absent("[]", "index")]
#[case::empty(r#"{"weight_map": {}}"#, "empty")]
#[case::upwards(
    r#"{"weight_map": {"a": "../model-00001-of-00002.safetensors"}}"#,
    "not the name of a file"
)]
#[case::absolute(r#"{"weight_map": {"a": "/etc/passwd"}}"#, "not the name of a file")]
#[case::backwards(
    r#"{"weight_map": {"a": "..\\x.safetensors"}}"#,
    "not the name of a file"
)]
#[case::nothing(r#"{"weight_map": {"a": ""}}"#, "not the name of a file")]
#[case::missing(r#"{"weight_map": {"a": "other.safetensors"}}"#, "other.safetensors")]
#[case::elsewhere(
    r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#,
    "no tensor \"a\""
)]
#[case::itself(
    r#"{"weight_map": {"a": "model.safetensors.index.json"}}"#,
    "not a safetensors file"
)]
#[case::broken("{\"weight_map\": {", "index")]
fn hostile_indices_are_refused(#[case] index: &str, #[case] words: &str) {
    let folder = Folder::of("hf_mistral");
    folder.shard();
    fs::write(folder.path("model.safetensors.index.json"), index).unwrap();
    let refusal = folder.refusal();
    assert!(refusal.contains(words), "{refusal}");
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let folder = Folder::of("hf_mistral");
    folder.shard();
    let first = folder.path("model-00001-of-00002.safetensors");
    fs::copy(first, folder.path("copy.safetensors")).unwrap();
    let path = folder.path("model.safetensors.index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    index["weight_map"]["more"] = json!("copy.safetensors");
    folder.index(index);
    assert!(folder.refusal().contains("too"), "{}", folder.refusal());
}

#[test]
fn damaged_folders_are_refused() {
    let folder = Folder::of("hf_mistral");
    let path = folder.path("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    for length in [0, 7, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(folder.refusal().contains("model.safetensors"), "{length}");
    }
    fs::remove_file(&path).unwrap();
    assert!(folder.refusal().contains("neither model.safetensors nor"));
    fs::write(folder.path("pytorch_model.bin"), "").unwrap();
    assert!(folder.refusal().contains("pytorch_model.bin"));
    for config in [
        "",
        "[]",
        "{\"model_type\": 3}",
        "{\"model_type\": \"gpt2\"}",
    ] {
        fs::write(folder.path("config.json"), config).unwrap();
        folder.refusal();
    }
    fs::remove_file(folder.path("config.json")).unwrap();
    assert!(folder.refusal().contains("config.json"));
}

fn import(config: Value) -> Result<ModelConfig, InteropError> {
    let config = config.as_object().unwrap();
    hugging_face::import(config).map(|imported| imported.model)
}

/// A configuration that says nothing is its architecture's own.
#[rstest]
#[case("llama", (32_000, 4096, 32, 32, 128), None, 1e4)]
#[case("mistral", (32_000, 4096, 32, 8, 128), Some(4096), 1e4)]
#[case("qwen3", (151_936, 4096, 32, 32, 128), None, 1e4)]
#[case("qwen3_moe", (151_936, 2048, 32, 4, 64), None, 1e4)]
#[case("mixtral", (32_000, 4096, 32, 8, 128), None, 1e6)]
#[case("olmo2", (50_304, 4096, 32, 32, 128), None, 1e4)]
#[case("olmoe", (50_304, 2048, 16, 16, 128), None, 1e4)]
#[case("gemma2", (256_000, 2304, 8, 4, 256), Some(4096), 1e4)]
#[case("gemma3_text", (262_208, 2304, 8, 4, 256), Some(4096), 1e6)]
#[case("gemma3", (262_208, 2304, 8, 4, 256), Some(4096), 1e6)]
fn what_is_not_said_is_assumed_as_transformers_does(
    #[case] model_type: &str,
    #[case] sizes: (usize, usize, usize, usize, usize),
    #[case] window: Option<usize>,
    #[case] theta: f64,
) {
    let model = import(json!({"model_type": model_type})).unwrap().decoder;
    let found = (
        model.padded_vocab_size,
        model.d_model,
        model.n_heads,
        model.n_kv_heads,
        model.head_dim(),
    );
    assert_eq!(found, sizes);
    assert_eq!((model.sliding_window, model.rope.theta), (window, theta));
    assert_eq!(model.tied, model_type.starts_with("gemma"));
}

#[test]
fn null_is_not_absent() {
    let window = |value: Value| import(value).unwrap().decoder.sliding_window;
    let mistral = json!({"model_type": "mistral", "sliding_window": null});
    assert_eq!(window(mistral), None);
    let gemma = json!({"model_type": "gemma2", "attn_logit_softcapping": null, "final_logit_softcapping": null});
    let gemma = import(gemma).unwrap().decoder;
    assert_eq!((gemma.attention_softcap, gemma.logit_softcap), (None, None));
}

#[test]
fn gemma_alternates() {
    let gemma2 = import(
        json!({"model_type": "gemma2", "num_hidden_layers": 5, "query_pre_attn_scalar": 64}),
    );
    let gemma2 = gemma2.unwrap().decoder;
    assert_eq!(gemma2.global_layers, [1, 3]);
    assert_eq!((gemma2.window(0), gemma2.window(1)), (Some(4096), None));
    assert_eq!(
        (gemma2.softmax_scale, gemma2.embedding_scale),
        (Some(0.125), Some(48.0))
    );
    assert!(gemma2.norm.unit_offset && gemma2.activation == Activation::GeGlu);
    // As the Hub has Gemma 3: little is said, and one scaling, which is for the layers without a window.
    let text =
        json!({"num_hidden_layers": 13, "rope_scaling": {"factor": 8.0, "rope_type": "linear"}});
    let gemma3 = import(json!({"model_type": "gemma3", "text_config": text}))
        .unwrap()
        .decoder;
    assert_eq!(gemma3.global_layers, [5, 11]);
    assert!(
        matches!(&gemma3.rope.scaling, Some(RopeScaling::Linear(linear)) if linear.factor == 8.0)
    );
    let local = gemma3.local_rope.unwrap();
    assert_eq!((local.theta, local.scaling), (1e4, None));
}

#[test]
fn qwen_3_has_windows_in_its_upper_layers() {
    let config = json!({"model_type": "qwen3", "num_hidden_layers": 4, "use_sliding_window": true, "max_window_layers": 3});
    assert_eq!(import(config).unwrap().decoder.global_layers, [0, 1, 2]);
}

#[rstest]
#[case("llama", "rope_scaling.rope_type", json!({"rope_type": "dynamic", "factor": 2.0}))]
#[case("llama", "rope_scaling.rope_type", json!({"type": "longrope", "long_factor": []}))]
#[case("llama", "rope_scaling.factor", json!({"type": "linear"}))]
#[case("llama", "rope_parameters.full_attention", json!({"full_attention": {"rope_theta": 1e4}}))]
#[case("llama", "layer_types", json!(["sliding_attention"]))]
#[case("llama", "layer_types", json!(["full_attention"]))]
#[case("mistral", "layer_types", json!(["sliding_attention"]))]
#[case("llama", "hidden_act", json!("gelu"))]
#[case("llama", "quantization_config", json!({"bits": 4}))]
#[case("mistral", "attention_bias", json!(true))]
#[case("mistral", "layer_types", json!(["full_attention"]))]
#[case("qwen3", "layer_types", json!(["full_attention"]))]
#[case("qwen3", "num_attention_heads", json!(null))]
#[case("olmo2", "clip_qkv", json!(3.0))]
#[case("mixtral", "router_jitter_noise", json!(0.1))]
#[case("gemma2", "use_bidirectional_attention", json!(true))]
#[case("gemma2", "sliding_window", json!(null))]
#[case("gemma3_text", "rope_parameters.rope_theta", json!({"rope_theta": 1e4}))]
#[case("gemma3_text", "sliding_window_pattern", json!(0))]
#[case("gemma3", "text_config.some_new_option", json!({"some_new_option": 3}))]
#[case("gemma3", "tie_word_embeddings", json!(false))]
fn what_cannot_be_expressed_is_refused_by_field(
    #[case] model_type: &str,
    #[case] field: &str,
    #[case] value: Value,
) {
    let key = field.split('.').next().unwrap();
    let error = import(json!({"model_type": model_type, key: value})).unwrap_err();
    assert!(matches!(error, InteropError::Unsupported { .. }), "{error}");
    assert!(error.to_string().starts_with(field), "{error}");
}

/// The table in the documentation is the one in the code.
#[test]
fn the_documentation_shows_the_table_of_architectures() {
    let head =
        "| `model_type` | class in transformers | placement | what else |\n|---|---|---|---|";
    let rows = ARCHITECTURES.iter().map(|row| {
        let (kind, class, placement, summary) =
            (row.model_type, row.class, row.placement, row.summary);
        format!("| `{kind}` | `{class}` | `{placement}` | {summary} |")
    });
    let table = std::iter::once(head.to_string())
        .chain(rows)
        .collect::<Vec<_>>()
        .join("\n");
    let page = include_str!("../../../docs/interop.md");
    assert!(
        page.contains(&table),
        "docs/interop.md needs this table:\n\n{table}\n"
    );
}
