//! Small models of every kind, with weights that are nothing special.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use hybridnorm_core::attention::rope::{
    LinearScaling, Llama3Scaling, RopeScaling, RotaryConfig, YarnScaling,
};
use hybridnorm_core::{
    Activation, Decoder, DecoderConfig, LayerNorms, NormKind, NormSite, NormSpan, NormStyle,
    PLACEMENTS, Placement, QkvNormSites, ResidualNorms,
};
use hybridnorm_moe::{
    FeedForwardLayer, ModelConfig, RouterConfig, ScoreFunction, SparseConfig, SparseLayers,
};

/// Tokens of the tokenizer; the embedding has some rows more.
pub const VOCAB: usize = 90;

fn small(placement: Placement) -> DecoderConfig {
    DecoderConfig {
        padded_vocab_size: 96,
        max_seq_len: 64,
        placement,
        ..DecoderConfig::new(VOCAB, 32, 4, 4)
    }
}

fn named(name: &str) -> DecoderConfig {
    small(name.parse().unwrap())
}

fn sparse(change: impl FnOnce(&mut SparseConfig)) -> Option<SparseConfig> {
    let mut sparse = SparseConfig::new(4, 2, 24);
    change(&mut sparse);
    Some(sparse)
}

/// A model of `decoder` with weights that no two of are alike: of norms too, which begin as ones.
pub fn trained(config: &ModelConfig, device: &Device) -> Decoder<FeedForwardLayer> {
    struct Disturb(u32);
    impl ModuleMapper for Disturb {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| {
                let (device, shape) = (tensor.device(), tensor.shape());
                let mut values: Vec<f32> = tensor.try_into_vec_as().unwrap();
                for value in &mut values {
                    // Numbers of a linear congruence, from -1/2 to 1/2.
                    self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    *value = 1.5 * *value + 0.4 * ((self.0 >> 8) as f32 / (1 << 24) as f32 - 0.5);
                }
                Tensor::from_data(TensorData::new(values, shape), &device)
            })
        }
    }
    config.init(device).unwrap().map(&mut Disturb(7))
}

/// Models that transformers has no architecture for: every placement that is none of theirs, and every option.
pub fn ours() -> Vec<(String, ModelConfig)> {
    let mut models: Vec<(String, ModelConfig)> = Vec::new();
    let mut add = |name: &str, decoder: DecoderConfig, sparse: Option<SparseConfig>| {
        models.push((name.to_string(), ModelConfig { decoder, sparse }));
    };
    let star = || named("hybrid-star");
    add("hybrid", named("hybrid"), None);
    add("hybrid-star-moe", star(), sparse(|_| {}));
    let post = DecoderConfig {
        bias: true,
        tied: false,
        activation: Activation::Gelu,
        norm: NormStyle {
            kind: NormKind::Layer,
            bias: true,
            ..NormStyle::default()
        },
        ..named("post")
    };
    add("post-layernorm-bias", post, None);
    let theirs = ["pre", "pre-qk", "output-norm", "pre-qk-full"];
    for row in PLACEMENTS {
        if !theirs.contains(&row.name) && !["hybrid", "post"].contains(&row.name) {
            add(row.name, small(row.into()), None);
        }
    }
    let site = NormSite {
        span: NormSpan::FullWidth,
        affine: false,
    };
    let odd = LayerNorms::new(
        QkvNormSites {
            context: Some(NormSite::FULL_WIDTH),
            ..QkvNormSites::at("qv", site)
        },
        ResidualNorms {
            stream: true,
            output: true,
            after: true,
            alpha: 0.7,
            beta: 1.3,
            input_scale: 0.5,
            ..ResidualNorms::PLAIN
        },
        ResidualNorms::PLAIN,
    );
    let custom = DecoderConfig {
        n_kv_heads: 2,
        head_dim: Some(12),
        activation: Activation::Relu,
        embedding_norm: Some(true),
        embedding_scale: Some(1.7),
        final_norm: Some(true),
        norm: NormStyle {
            epsilon: 1e-3,
            affine: false,
            ..NormStyle::default()
        },
        sliding_window: Some(5),
        global_layers: vec![1],
        local_rope: Some(RotaryConfig {
            theta: 100.0,
            scaling: None,
        }),
        rope: RotaryConfig {
            theta: 1e4,
            scaling: Some(RopeScaling::Yarn(YarnScaling {
                factor: 4.0,
                original_max_position: 16.0,
                beta_fast: 4.0,
                beta_slow: 1.0,
                attention_factor: 1.1,
                truncate: true,
            })),
        },
        clip_qkv: Some(0.8),
        softmax_scale: Some(0.4),
        attention_softcap: Some(3.0),
        logit_scale: Some(0.5),
        logit_softcap: Some(6.0),
        ..small(Placement::custom(odd).with_layer(
            2,
            LayerNorms::new(
                QkvNormSites::QKV,
                ResidualNorms::PRE,
                ResidualNorms::SHIFTED,
            ),
        ))
    };
    add("custom", custom, None);
    let multi_query = DecoderConfig {
        n_kv_heads: 1,
        activation: Activation::GeGlu,
        clip_qkv: Some(0.6),
        clip_normed: true,
        attention_bias: Some(true),
        tied: false,
        head_bias: Some(false),
        ..star()
    };
    add("multi-query", multi_query, None);
    let shared = sparse(|sparse| {
        sparse.layers = SparseLayers::Every(2);
        sparse.shared_d_ff = Some(20);
        sparse.activation = Activation::ReGlu;
        sparse.router = RouterConfig {
            score: ScoreFunction::Sigmoid,
            renormalize: true,
            bias_update: Some(0.01),
            ..sparse.router.clone()
        };
    });
    add("shared-expert", star(), shared);
    let exact = |decoder: DecoderConfig| DecoderConfig {
        activation: Activation::GeGluExact,
        ..decoder
    };
    add("gelu-gate", exact(star()), None);
    // One hidden_act for both is all that transformers has.
    let mixed = sparse(|sparse| sparse.layers = SparseLayers::Only(vec![0, 2]));
    add("experts-of-another-gate", exact(named("pre-qk")), mixed);
    models
}

/// A model for each architecture of transformers that can be written, and some at their edges. Names begin with the `model_type`.
pub fn theirs() -> Vec<(String, ModelConfig)> {
    let mut models: Vec<(String, ModelConfig)> = Vec::new();
    let mut add = |name: &str, decoder: DecoderConfig, sparse: Option<SparseConfig>| {
        models.push((name.to_string(), ModelConfig { decoder, sparse }));
    };
    let llama = DecoderConfig {
        n_kv_heads: 2,
        tied: false,
        attention_bias: Some(true),
        rope: RotaryConfig {
            theta: 1e4,
            scaling: Some(RopeScaling::Llama3(Llama3Scaling {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position: 16.0,
            })),
        },
        ..named("pre")
    };
    add("llama", llama, None);
    let window = |decoder: DecoderConfig| DecoderConfig {
        sliding_window: Some(7),
        ..decoder
    };
    add("mistral", window(named("pre")), None);
    // Llama wants a width that is a multiple of its heads.
    let odd_width = DecoderConfig {
        d_model: 30,
        head_dim: Some(8),
        ..named("pre")
    };
    add("mistral-odd-width", odd_width, None);
    let qwen = || DecoderConfig {
        head_dim: Some(16),
        n_kv_heads: 2,
        ..named("pre-qk")
    };
    let upper = DecoderConfig {
        global_layers: vec![0],
        ..window(qwen())
    };
    add("qwen3", upper, None);
    let some = |sparse: &mut SparseConfig| {
        sparse.layers = SparseLayers::Only(vec![0, 2]);
        sparse.router.renormalize = true;
    };
    add("qwen3_moe", qwen(), sparse(some));
    add(
        "mixtral",
        named("pre"),
        sparse(|sparse| sparse.router.renormalize = true),
    );
    add("olmo2", named("output-norm"), None);
    let clipped = DecoderConfig {
        clip_qkv: Some(0.7),
        clip_normed: true,
        tied: false,
        ..named("pre-qk-full")
    };
    add("olmoe", clipped, sparse(|_| {}));
    let gates = [
        ("tanh", Activation::GeGlu),
        ("gelu", Activation::GeGluExact),
        ("relu", Activation::ReGlu),
    ];
    for (name, activation) in gates {
        let gate = |placement: &str| DecoderConfig {
            activation,
            ..named(placement)
        };
        let of = |renormalize: bool| {
            sparse(|sparse| {
                sparse.activation = activation;
                sparse.router.renormalize = renormalize;
            })
        };
        let upper = of(true).map(|sparse| SparseConfig {
            layers: SparseLayers::Only(vec![1, 3]),
            ..sparse
        });
        add(&format!("llama-{name}"), gate("pre"), None);
        add(&format!("qwen3_moe-{name}"), gate("pre-qk"), upper);
        add(&format!("mixtral-{name}"), named("pre"), of(true));
        add(&format!("olmoe-{name}"), named("pre-qk-full"), of(false));
    }
    let gemma = |placement: &str| DecoderConfig {
        head_dim: Some(16),
        activation: Activation::GeGlu,
        norm: NormStyle {
            unit_offset: true,
            ..NormStyle::default()
        },
        embedding_scale: Some(f64::from(32f32.sqrt())),
        softmax_scale: Some(24f64.powf(-0.5)),
        global_layers: vec![1],
        ..window(named(placement))
    };
    let caps = DecoderConfig {
        attention_softcap: Some(4.0),
        logit_softcap: Some(9.0),
        ..gemma("sandwich")
    };
    add("gemma2", caps.clone(), None);
    let without_window = DecoderConfig {
        sliding_window: None,
        global_layers: Vec::new(),
        ..caps
    };
    add("gemma2-without-window", without_window, None);
    let local = DecoderConfig {
        local_rope: Some(RotaryConfig {
            theta: 100.0,
            scaling: None,
        }),
        ..gemma("sandwich-qk")
    };
    add("gemma3_text", local.clone(), None);
    let scaled = RotaryConfig {
        theta: 100.0,
        scaling: Some(RopeScaling::Linear(LinearScaling { factor: 4.0 })),
    };
    let both_scaled = DecoderConfig {
        rope: RotaryConfig {
            theta: 1e4,
            ..scaled.clone()
        },
        local_rope: Some(scaled),
        ..local
    };
    add("gemma3_text-both-scaled", both_scaled, None);
    models
}
