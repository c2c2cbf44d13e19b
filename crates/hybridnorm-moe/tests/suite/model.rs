//! Whole models: parameter counts, mixes, refusals, configuration files.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use hybridnorm_core::{DecoderConfig, Pass};
use hybridnorm_moe::{ModelConfig, PRESETS, RouterConfig, SparseConfig, SparseLayers};
use hybridnorm_testing::{any_device, apply, every_device, parameters};

fn small(layers: SparseLayers) -> ModelConfig {
    ModelConfig {
        decoder: DecoderConfig::new(50, 32, 4, 4),
        sparse: Some(SparseConfig {
            layers,
            ..SparseConfig::new(4, 2, 24)
        }),
    }
}

fn preset(name: &str) -> ModelConfig {
    PRESETS
        .iter()
        .find(|preset| preset.name == name)
        .unwrap()
        .config()
}

/// `../shared/reference/micro_moe/full_size_1b_7b.json`, computed by the authors' code for plain HybridNorm.
#[test]
fn the_published_size_has_the_published_parameters() {
    let config = preset("moe-1b-7b");
    assert_eq!(config.num_params(), Ok((6_919_069_696, 1_281_925_120)));
}

#[apply(every_device!)]
fn the_count_is_what_is_built(#[case] device: &Device) {
    let shared = |config: ModelConfig| ModelConfig {
        sparse: config.sparse.map(|sparse| SparseConfig {
            shared_d_ff: Some(8),
            router: RouterConfig {
                bias_update: Some(0.01),
                ..sparse.router
            },
            ..sparse
        }),
        ..config
    };
    for config in [
        small(SparseLayers::All),
        shared(small(SparseLayers::Every(2))),
        small(SparseLayers::Only(vec![1, 2])),
        DecoderConfig::new(50, 32, 4, 2).into(),
    ] {
        let (all, active) = config.num_params().unwrap();
        assert_eq!(config.init(device).unwrap().num_params(), all, "{config:?}");
        assert!(active <= all);
    }
}

#[apply(every_device!)]
fn layers_are_sparse_where_they_are_said_to_be(#[case] device: &Device) {
    for (layers, expected) in [
        (SparseLayers::All, vec![0, 1, 2, 3]),
        (SparseLayers::Every(2), vec![1, 3]),
        (SparseLayers::Every(3), vec![2]),
        (SparseLayers::Only(vec![0, 3]), vec![0, 3]),
    ] {
        let model = small(layers).init(device).unwrap();
        let mut pass = Pass::causal();
        let tokens = Tensor::<2, Int>::from_ints([[1, 2, 3]], device);
        let logits = model.forward_in(tokens, &mut pass);
        assert_eq!(logits.dims(), [1, 3, 50]);
        let layers: Vec<usize> = pass
            .reports
            .iter()
            .filter_map(|routing| routing.layer)
            .collect();
        assert_eq!(layers, expected);
    }
}

/// A dense model built here is the one that `hybridnorm-core` builds, parameter for parameter and by the same paths.
#[apply(every_device!)]
fn a_dense_model_is_the_core_s(#[case] device: &Device) {
    let config = DecoderConfig::new(50, 32, 4, 2);
    let here = ModelConfig::from(config.clone()).init(device).unwrap();
    assert_eq!(parameters(&here), parameters(&config.init(device).unwrap()));
}

/// The same seed gives the same experts, however many there are.
#[apply(every_device!)]
fn an_expert_does_not_depend_on_how_many_there_are(#[case] device: &Device) {
    let of = |n: usize| {
        let config = ModelConfig {
            sparse: Some(SparseConfig::new(n, 2, 24)),
            ..small(SparseLayers::All)
        };
        parameters(&config.init(device).unwrap())
    };
    let (few, many) = (of(4), of(8));
    for path in ["gate", "up", "down"].map(|name| format!("blocks.1.feed_forward.experts.{name}")) {
        assert_eq!(few[&path], many[&path][..few[&path].len()], "{path}");
        assert_ne!(
            few[&path][..32 * 24],
            few[&path][32 * 24..2 * 32 * 24],
            "{path}"
        );
    }
}

#[test]
fn every_preset_is_valid() {
    for preset in PRESETS {
        assert_eq!(preset.config().validate(), Ok(()), "{}", preset.name);
        assert!(
            preset.config().decoder.warnings().is_empty(),
            "{}",
            preset.name
        );
    }
    preset("moe-demo").init(&any_device()).unwrap();
}

#[test]
fn what_cannot_be_built_is_refused_by_name() {
    let refused = |change: fn(&mut SparseConfig), words: &[&str]| {
        let mut config = small(SparseLayers::All);
        config.sparse.as_mut().map(change);
        let message = config.validate().unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "{message:?} lacks {word:?}");
        }
    };
    refused(
        |c| c.router.n_experts = 0,
        &["router.n_experts = 0", "from 1"],
    );
    refused(
        |c| c.router.top_k = 0,
        &["router.top_k = 0", "n_experts = 4"],
    );
    refused(
        |c| c.router.top_k = 5,
        &["router.top_k = 5", "n_experts = 4"],
    );
    refused(
        |c| c.router.jitter = Some(1.0),
        &["router.jitter = 1", "below 1"],
    );
    refused(
        |c| c.router.jitter = Some(f64::NAN),
        &["router.jitter = NaN"],
    );
    refused(
        |c| c.router.bias_update = Some(-0.1),
        &["router.bias_update = -0.1", "above 0"],
    );
    refused(
        |c| c.router.bias_update = Some(f64::INFINITY),
        &["router.bias_update = inf"],
    );
    refused(|c| c.d_ff = 0, &["sparse.d_ff = 0"]);
    refused(|c| c.shared_d_ff = Some(0), &["sparse.shared_d_ff = 0"]);
    refused(
        |c| c.capacity_factor = Some(0.0),
        &["sparse.capacity_factor = 0"],
    );
    refused(
        |c| c.layers = SparseLayers::Every(0),
        &["sparse.layers", "every = 0"],
    );
    refused(
        |c| c.layers = SparseLayers::Every(5),
        &["every = 5", "n_layers = 4"],
    );
    refused(
        |c| c.layers = SparseLayers::Only(vec![]),
        &["sparse.layers", "only = []"],
    );
    refused(
        |c| c.layers = SparseLayers::Only(vec![1, 4]),
        &["sparse.layers = 4", "n_layers = 4"],
    );
    refused(|c| c.losses.balance = -1.0, &["sparse.losses.balance = -1"]);
    refused(|c| c.losses.z = f64::NAN, &["sparse.losses.z = NaN"]);
}

#[test]
fn configurations_survive_their_file_format_and_refuse_unknown_fields() {
    let mut config = SparseConfig::new(8, 2, 24);
    config.layers = SparseLayers::Only(vec![1, 3]);
    config.router.bias_update = Some(0.001);
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<SparseConfig>(&text).unwrap(), config);
    let error = serde_json::from_str::<SparseConfig>(
        r#"{"router": {"n_experts": 8, "top_k": 2, "topk": 1}, "d_ff": 24}"#,
    );
    assert!(error.unwrap_err().to_string().contains("topk"));
    let error = serde_json::from_str::<SparseConfig>(
        r#"{"router": {"n_experts": 8, "top_k": 2}, "d_ff": 24, "expert": 1}"#,
    );
    assert!(error.unwrap_err().to_string().contains("expert"));
}
