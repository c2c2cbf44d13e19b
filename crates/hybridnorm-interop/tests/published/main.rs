//! Published folders: whole, in shards, in other types and spellings. The models are those that transformers made for `verify`, which
//! holds their numbers.

mod configuration;
mod damaged;
mod folder;

use std::collections::BTreeMap;
use std::fs;

use folder::{Folder, numbers, reference};
use hybridnorm_interop::hugging_face::ARCHITECTURES;
use hybridnorm_interop::{Dtype, Pretrained};
use hybridnorm_testing::{any_device, apply, every_device, parameters};
use rstest::rstest;
use serde_json::json;

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
