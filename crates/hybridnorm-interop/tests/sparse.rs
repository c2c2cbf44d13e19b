//! Configurations of sparse models, in both formats: what they mean, and what is refused.

use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use hybridnorm_core::{Activation, NormSpan, RotaryConfig};
use hybridnorm_interop::official::{self, OfficialConfig};
use hybridnorm_interop::{Array, InteropError, NameMap, TensorFile, hugging_face, load};
use hybridnorm_moe::{LossConvention, ModelConfig, SparseLayers};
use hybridnorm_testing::any_device;
use rstest::rstest;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde_json::{Map, Value, json};

fn reference(file: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hybridnorm-train/reference");
    let text = std::fs::read_to_string(folder.join(file)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn with(mut config: Value, changes: Value) -> Map<String, Value> {
    let config = config.as_object_mut().unwrap();
    config.extend(changes.as_object().unwrap().clone());
    config.clone()
}

fn official(changes: Value) -> Result<ModelConfig, InteropError> {
    let case = reference("moe_hybridnorm_star/case.json");
    let config = with(case["model_config"].clone(), changes);
    let config: OfficialConfig = serde_json::from_value(config.into()).unwrap();
    config.to_model()
}

#[test]
fn the_release_says_what_its_layers_are() {
    let model = official(json!({})).unwrap();
    assert_eq!(model.decoder.placement.to_string(), "hybrid-star");
    let sparse = model.sparse.unwrap();
    assert_eq!((sparse.router.n_experts, sparse.router.top_k), (8, 2));
    assert_eq!((sparse.d_ff, sparse.shared_d_ff), (40, None));
    assert_eq!((sparse.losses.balance, sparse.losses.z), (0.01, 0.001));
    assert!(!sparse.router.renormalize);
    let changed = official(json!({
        "moe_shared_expert": true, "moe_normalize_expert_weights": 1, "moe_zloss_weight": null, "moe_top_k": 3,
    }));
    let sparse = changed.unwrap().sparse.unwrap();
    assert_eq!((sparse.shared_d_ff, sparse.losses.z), (Some(40), 0.0));
    assert!(sparse.router.renormalize && sparse.router.top_k == 3);
}

#[rstest]
#[case("moe_dropless", json!(false))]
#[case("moe_normalize_expert_weights", json!(2))]
#[case("moe_expert_choice", json!(true))]
#[case("activation_type", json!("gelu"))]
fn the_release_is_refused_by_field(#[case] field: &str, #[case] value: Value) {
    let error = official(json!({field: value})).unwrap_err();
    assert!(matches!(error, InteropError::Unsupported { .. }), "{error}");
    assert!(error.to_string().starts_with(field), "{error}");
}

/// What transformers writes for the three architectures, in small.
fn config_of(model_type: &str) -> Value {
    match model_type {
        "mixtral" => reference("hf_mixtral/model/config.json"),
        "olmoe" => json!({
            "model_type": "olmoe", "attention_bias": false, "clip_qkv": null, "hidden_act": "silu", "hidden_size": 48,
            "intermediate_size": 40, "norm_topk_prob": false, "num_attention_heads": 4, "num_experts": 8,
            "num_experts_per_tok": 2, "num_hidden_layers": 2, "num_key_value_heads": 4, "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "router_aux_loss_coef": 0.01,
            "tie_word_embeddings": false, "vocab_size": 131,
        }),
        _ => json!({
            "model_type": "qwen3_moe", "decoder_sparse_step": 1, "head_dim": 16, "hidden_act": "silu", "hidden_size": 48,
            "intermediate_size": 40, "mlp_only_layers": [], "moe_intermediate_size": 32, "norm_topk_prob": false,
            "num_attention_heads": 4, "num_experts_per_tok": 2, "num_hidden_layers": 4, "num_key_value_heads": 2,
            "num_local_experts": 6, "rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
            "sliding_window": null, "use_sliding_window": false, "vocab_size": 131,
        }),
    }
}

fn import(model_type: &str, changes: Value) -> Result<ModelConfig, InteropError> {
    let config = with(config_of(model_type), changes);
    hugging_face::import(&config).map(|imported| imported.model)
}

#[test]
fn mixtrals_weights_sum_to_one() {
    let model = import("mixtral", json!({"sliding_window": 9})).unwrap();
    assert_eq!(model.decoder.placement.to_string(), "pre");
    assert_eq!(model.decoder.sliding_window, Some(9));
    let sparse = model.sparse.unwrap();
    assert!(sparse.router.renormalize);
    assert_eq!(sparse.losses.convention, LossConvention::HuggingFace);
    assert_eq!((sparse.losses.balance, sparse.losses.z), (0.02, 0.0));
}

#[test]
fn olmoe_normalises_the_full_width_and_clamps_then() {
    let changes = json!({"clip_qkv": 0.5, "norm_topk_prob": true, "tie_word_embeddings": true});
    let model = import("olmoe", changes).unwrap();
    let norms = model.decoder.placement.layer(1, 2).unwrap();
    assert_eq!(norms.qkv.query.unwrap().span, NormSpan::FullWidth);
    assert!(model.decoder.clip_normed && model.decoder.clip_qkv == Some(0.5));
    assert!(model.decoder.tied && model.sparse.unwrap().router.renormalize);
}

#[rstest]
#[case(json!({}), Some(SparseLayers::All))]
#[case(json!({"decoder_sparse_step": 2}), Some(SparseLayers::Only(vec![1, 3])))]
#[case(json!({"mlp_only_layers": [0, 2, 3]}), Some(SparseLayers::Only(vec![1])))]
#[case(json!({"mlp_only_layers": [0, 1, 2, 3]}), None)]
fn qwens_layers_may_be_dense(#[case] changes: Value, #[case] layers: Option<SparseLayers>) {
    let model = import("qwen3_moe", changes).unwrap();
    assert_eq!((model.decoder.d_ff, model.decoder.head_dim), (40, Some(16)));
    assert_eq!(model.decoder.placement.to_string(), "pre-qk");
    assert!(model.sparse.as_ref().is_none_or(|sparse| sparse.d_ff == 32));
    assert_eq!(model.sparse.map(|sparse| sparse.layers), layers);
}

#[rstest]
#[case(json!({"rope_parameters": null, "rope_theta": 5e5}), 5e5, false)]
#[case(json!({"rope_parameters": null}), 1e4, false)]
#[case(json!({"rope_parameters": null, "rope_theta": 7.0, "rope_scaling": {
    "type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}}), 7.0, true)]
fn older_spellings_of_rotary_positions_are_read(
    #[case] changes: Value,
    #[case] theta: f64,
    #[case] scaled: bool,
) {
    let RotaryConfig {
        theta: found,
        scaling,
    } = import("olmoe", changes).unwrap().decoder.rope;
    assert_eq!((found, scaling.is_some()), (theta, scaled));
}

/// Dense layers and experts have the same one.
#[rstest]
#[case("swish", Activation::SwiGlu)]
#[case("gelu_pytorch_tanh", Activation::GeGlu)]
#[case("gelu_new", Activation::GeGlu)]
#[case("gelu", Activation::GeGluExact)]
#[case("relu", Activation::ReGlu)]
fn gates_are_called_as_in_transformers(#[case] name: &str, #[case] activation: Activation) {
    for model_type in ["mixtral", "olmoe", "qwen3_moe"] {
        let model = import(model_type, json!({"hidden_act": name})).unwrap();
        assert_eq!(model.decoder.activation, activation, "{model_type}");
        assert_eq!(model.sparse.unwrap().activation, activation, "{model_type}");
    }
}

#[test]
fn experts_may_be_counted_under_either_name() {
    let changes = json!({"num_local_experts": null, "num_experts": 5});
    assert_eq!(
        import("qwen3_moe", changes)
            .unwrap()
            .sparse
            .unwrap()
            .router
            .n_experts,
        5
    );
}

#[rstest]
#[case("model_type", json!("gpt2"))]
#[case("hidden_act", json!("gelu_10"))]
#[case("attention_dropout", json!(0.1))]
#[case("layer_types", json!(["sliding_attention"]))]
#[case("partial_rotary_factor", json!(0.5))]
#[case("rope_parameters.rope_type", json!({"rope_type": "dynamic", "factor": 4.0}))]
#[case("quantization_config", json!({"bits": 4}))]
#[case("some_new_option", json!(3))]
#[case("num_hidden_layers", json!("two"))]
fn other_fields_are_refused_by_name(#[case] field: &str, #[case] value: Value) {
    let key = field.split('.').next().unwrap();
    let error = import("olmoe", json!({key: value})).unwrap_err();
    assert!(matches!(error, InteropError::Unsupported { .. }), "{error}");
    assert!(error.to_string().starts_with(field), "{error}");
}

#[test]
fn an_absent_size_is_named() {
    let error = import("olmoe", json!({"hidden_size": null})).unwrap_err();
    assert!(error.to_string().contains("hidden_size"), "{error}");
}

/// Every tensor of a file that would hold a module's parameters.
struct Splitter<'a> {
    names: &'a NameMap,
    path: Vec<String>,
    tensors: Vec<(String, Array)>,
}

impl ModuleVisitor for Splitter<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.val().dims().to_vec();
        let values = param.val().into_data().iter::<f64>().collect();
        let path = self.path.join(".");
        let layout = self.names.layout(&path, &shape);
        let layout = layout.unwrap_or_else(|| panic!("{path} has no name"));
        self.tensors.extend(layout.split(&Array { shape, values }));
    }
}

fn split(model: &impl Module, names: &NameMap) -> Vec<(String, Array)> {
    let mut splitter = Splitter {
        names,
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut splitter);
    splitter.tensors
}

/// Parameters in pieces, written to a file and loaded into a model that starts from another seed.
#[rstest]
#[case("official", json!({"moe_shared_expert": true, "n_kv_heads": 2}), "transformer.blocks.1.ffn.shared_expert.gate_proj.weight")]
#[case("mixtral", json!({}), "model.layers.1.block_sparse_moe.experts.3.w2.weight")]
#[case("olmoe", json!({"num_key_value_heads": 2}), "model.layers.0.mlp.experts.7.up_proj.weight")]
#[case("olmoe", json!({"attention_bias": true, "tie_word_embeddings": true}), "model.layers.0.self_attn.k_proj.bias")]
#[case("qwen3_moe", json!({"mlp_only_layers": [0]}), "model.layers.0.mlp.gate_proj.weight")]
fn what_is_split_is_loaded_again(
    #[case] format: &str,
    #[case] changes: Value,
    #[case] tensor: &str,
) {
    let (mut model, names) = match format {
        "official" => (official(changes).unwrap(), official::names()),
        model_type => {
            let config = with(config_of(model_type), changes);
            let imported = hugging_face::import(&config).unwrap();
            (imported.model, imported.names)
        }
    };
    let device = &any_device();
    let tensors = split(&model.init(device).unwrap(), &names);
    let bytes = tensors.iter().map(|(name, array)| {
        let values = array.values.iter().map(|x| *x as f32);
        let bytes: Vec<u8> = values.flat_map(f32::to_le_bytes).collect();
        (name.clone(), array.shape.clone(), bytes)
    });
    let bytes: Vec<_> = bytes.collect();
    let views = bytes.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.clone(), view.unwrap())
    });
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    serialize_to_file(views, None, &path).unwrap();
    let file = TensorFile::open(&path).unwrap();
    assert!(file.contains(tensor), "{:?}", file.names());
    model.decoder.init.seed += 1;
    let other = model.init(device).unwrap();
    assert!(split(&other, &names) != tensors);
    let loaded = load(other, &file, &names).unwrap();
    assert!(split(&loaded, &names) == tensors);
}
