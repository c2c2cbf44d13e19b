//! What configurations mean, and what they leave unsaid.

use hybridnorm_core::{Activation, RopeScaling};
use hybridnorm_interop::InteropError;
use hybridnorm_interop::hugging_face::{self, ARCHITECTURES};
use hybridnorm_moe::ModelConfig;
use rstest::rstest;
use serde_json::{Value, json};

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
    for model_type in ["mixtral", "llama", "qwen3"] {
        let config =
            json!({"model_type": model_type, "attention_bias": null, "use_sliding_window": null});
        let model = import(config).unwrap().decoder;
        assert_eq!(model.attention_bias, Some(false), "{model_type}");
        assert_eq!(model.sliding_window, None, "{model_type}");
    }
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
#[case("llama", "hidden_act", json!("quick_gelu"))]
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
    let page = include_str!("../../../../docs/interop.md");
    assert!(
        page.contains(&table),
        "docs/interop.md needs this table:\n\n{table}\n"
    );
}
