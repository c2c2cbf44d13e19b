//! Folders that are damaged or hostile.

use std::fs;

use hybridnorm_interop::Dtype;
use hybridnorm_testing::any_device;
use rstest::rstest;
use serde_json::{Value, json};

use crate::folder::Folder;

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
