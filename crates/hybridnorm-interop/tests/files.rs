//! Files that are damaged, hostile, or of another model: each an error that says what is wrong.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use hybridnorm_core::DecoderConfig;
use hybridnorm_interop::official::{OfficialConfig, names};
use hybridnorm_interop::{InteropError, TensorFile, TensorFolder, Tensors, load};
use hybridnorm_testing::{apply, every_device};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

fn write(folder: &Path, bytes: &[u8]) -> PathBuf {
    let path = folder.join("weights.safetensors");
    std::fs::write(&path, bytes).unwrap();
    path
}

fn header(json: &str, body: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.resize(bytes.len() + body, 0);
    bytes
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = |start: usize, end: usize| {
        format!(r#"{{"x":{{"dtype":"F32","shape":[2],"data_offsets":[{start},{end}]}}}}"#)
    };
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("shorter than a header length", vec![1, 2, 3]),
        (
            "a header longer than the file",
            u64::MAX.to_le_bytes().to_vec(),
        ),
        ("no JSON", header("not json", 8)),
        ("a tensor beyond the end", header(&tensor(0, 8), 4)),
        ("a hole before the tensor", header(&tensor(4, 12), 12)),
        ("a tensor of the wrong length", header(&tensor(0, 4), 4)),
        ("bytes that nothing names", header(&tensor(0, 8), 16)),
    ] {
        let error = TensorFile::open(write(folder.path(), &bytes)).unwrap_err();
        assert!(
            matches!(
                error,
                InteropError::Format { .. } | InteropError::Read { .. }
            ),
            "{what}: {error}"
        );
        assert!(!error.to_string().contains('\n'), "{what}: {error}");
    }
    let error = TensorFile::open(folder.path().join("absent"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot read") && error.contains("absent"),
        "{error}"
    );
}

#[test]
fn every_float_type_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("types.safetensors");
    // 1.5 and −2 are exact in all of them
    let bytes: [(&str, Dtype, Vec<u8>); 4] = [
        (
            "f64",
            Dtype::F64,
            [1.5f64, -2.0]
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        ),
        (
            "f32",
            Dtype::F32,
            [1.5f32, -2.0]
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        ),
        (
            "f16",
            Dtype::F16,
            [0x3e00u16, 0xc000]
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        ),
        (
            "bf16",
            Dtype::BF16,
            [0x3fc0u16, 0xc000]
                .iter()
                .flat_map(|x| x.to_le_bytes())
                .collect(),
        ),
    ];
    let views = bytes
        .iter()
        .map(|(name, dtype, bytes)| (*name, TensorView::new(*dtype, vec![2], bytes).unwrap()));
    serialize_to_file(views, None, &path).unwrap();
    let file = TensorFile::open(&path).unwrap();
    for name in ["f64", "f32", "f16", "bf16"] {
        assert_eq!(file.array(name).unwrap().values, vec![1.5, -2.0], "{name}");
    }
    assert!(matches!(
        file.array("f8"),
        Err(InteropError::Missing { .. })
    ));
}

fn reference(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../hybridnorm-train/reference")
        .join(case)
}

fn official(case: &str) -> OfficialConfig {
    let text = std::fs::read_to_string(reference(case).join("case.json")).unwrap();
    let case: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(case["model_config"].clone()).unwrap()
}

#[apply(every_device!)]
fn weights_of_another_model_are_refused_tensor_by_tensor(#[case] device: &Device) {
    let file = TensorFile::open(reference("dense_qkvc_post").join("weights.safetensors")).unwrap();
    let right = official("dense_qkvc_post").to_model().unwrap().decoder;
    assert!(load(right.init(device).unwrap(), &file, &names()).is_ok());
    let attempt = |config: DecoderConfig| {
        let error = load(config.init(device).unwrap(), &file, &names()).unwrap_err();
        error.to_string()
    };
    let error = attempt(DecoderConfig {
        n_layers: 1,
        ..right.clone()
    });
    assert!(
        error.contains("blocks.1.att_proj.weight\" is left over"),
        "{error}"
    );
    let error = attempt(DecoderConfig {
        n_layers: 3,
        ..right.clone()
    });
    assert!(
        error.contains("blocks.2.att_proj.weight\" (for blocks.2.attention.qkv.weight) is missing"),
        "{error}"
    );
    let error = attempt(DecoderConfig {
        d_ff: 64,
        ..right.clone()
    });
    assert!(error.contains("ff_proj.weight\" has shape"), "{error}");
    let error = attempt(DecoderConfig {
        placement: "pre".parse().unwrap(),
        ..right
    });
    assert!(
        error.contains("q_norm.weight\" is left over") && error.contains("attn_norm"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_expressed_is_refused_by_field() {
    let base = official("dense_qkvc_post");
    type Change = fn(&mut OfficialConfig);
    let changes: [(&str, Change); 10] = [
        ("alibi", |c| c.alibi = true),
        ("rope", |c| c.rope = false),
        ("block_type", |c| c.block_type = "llama".to_string()),
        ("residual_dropout", |c| c.residual_dropout = 0.1),
        ("norm_after", |c| c.norm_after = true),
        ("layer_norm_type", |c| c.layer_norm_type = "ln".to_string()),
        ("activation_type", |c| {
            c.activation_type = "silu2".to_string()
        }),
        ("init_fn", |c| c.init_fn = "fan_in".to_string()),
        ("attention_layer_norm", |c| c.attention_layer_norm = true),
        ("norm_pos_special_config", |c| {
            c.norm_pos_special_config = Some("__import__('os')".to_string())
        }),
    ];
    for (field, change) in changes {
        let mut config = base.clone();
        change(&mut config);
        let error = config.to_model().unwrap_err();
        assert!(matches!(error, InteropError::Unsupported { .. }), "{error}");
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

/// As `state_dict_to_safetensors_file` of OLMo writes it with Python's usual protocol, the fourth: names are base64 of a pickle.
#[test]
fn names_in_olmos_code_are_the_names() {
    use base64::Engine;
    let plain = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../hybridnorm-train/reference/dense_hybridnorm_bias/weights.safetensors");
    let file = TensorFile::open(&plain).unwrap();
    let names = file.names();
    let coded = names.iter().map(|name| {
        let tuples = b"\x94\x85\x94\x89\x86\x94.";
        let text = [&[0x8c, name.len() as u8], name.as_bytes(), tuples].concat();
        let frame = (text.len() as u64).to_le_bytes();
        let pickle = [b"\x80\x04\x95", &frame[..], &text].concat();
        let view = file.view(name).unwrap();
        let view = TensorView::new(view.dtype, view.shape.to_vec(), view.bytes).unwrap();
        let code = base64::engine::general_purpose::URL_SAFE.encode(pickle);
        (code, view)
    });
    let folder = tempfile::tempdir().unwrap();
    serialize_to_file(coded, None, &folder.path().join("model.safetensors")).unwrap();
    let read = TensorFolder::open(folder.path()).unwrap();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(read.names(), sorted);
    for name in &names {
        let (found, wanted) = (read.view(name).unwrap(), file.view(name).unwrap());
        assert_eq!((found.shape, found.bytes), (wanted.shape, wanted.bytes));
        read.release(name);
    }
}

#[test]
fn named_placements_are_recognised() {
    for (case, name) in [
        ("dense_hybridnorm_star_b1t1", "hybrid-star"),
        ("dense_hybridnorm_bias", "hybrid"),
        ("dense_qkvc_post", "qkvc-post"),
        ("dense_prenorm_layernorm_gelu_bias", "pre"),
        ("dense_star_multi", "custom + 1 override"),
    ] {
        assert_eq!(
            official(case)
                .to_model()
                .unwrap()
                .decoder
                .placement
                .to_string(),
            name,
            "{case}"
        );
    }
}
