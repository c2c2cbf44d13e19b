//! How far steps move weights: closed forms, and that measuring changes nothing.

use std::collections::BTreeSet;

use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use hybridnorm_core::DecoderConfig;
use hybridnorm_moe::{ModelConfig, SparseConfig, SparseLayers};
use hybridnorm_testing::{apply, every_device, parameters};
use hybridnorm_train::recipe::{AdamWConfig, Optimizer, ParamGroup, params};

#[derive(Module, Debug)]
struct Bag {
    embedding: Embedding,
    matrix: Param<Tensor<2>>,
    zeros: Param<Tensor<2>>,
}

/// AdamW's first step moves every weight by the learning rate, whatever its gradient (m̂/√v̂ = ±1 up to ε): over weights of 2,
/// that is half the rate.
#[apply(every_device!)]
fn the_first_step_of_adamw_moves_weights_by_the_rate(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let bag = Bag {
        embedding: EmbeddingConfig::new(5, 3).init(&device),
        matrix: Param::from_tensor(Tensor::full([4, 3], 2.0, &device).require_grad()),
        zeros: Param::from_tensor(Tensor::zeros([2, 2], &device).require_grad()),
    };
    let mut grads = GradientsParams::new();
    let inner = &device.inner();
    grads.register(bag.matrix.id, Tensor::<2>::full([4, 3], -0.7, inner));
    let recipe = AdamWConfig {
        weight_decay: 0.0,
        ..AdamWConfig::default()
    };
    let (_, update) = Optimizer::new(recipe, &bag).measured_step(bag.clone(), grads, 0.01, 1.0);
    let ratios = update.read().unwrap().ratios();
    // A parameter without a gradient is in no group.
    assert_eq!(ratios.keys().collect::<Vec<_>>(), [&ParamGroup::Other]);
    let ratio = ratios[&ParamGroup::Other];
    assert!((ratio - 0.005).abs() < 1e-7, "{ratio}");

    let mut grads = GradientsParams::new();
    grads.register(bag.zeros.id, Tensor::<2>::ones([2, 2], inner));
    let (_, update) =
        Optimizer::new(AdamWConfig::default(), &bag).measured_step(bag, grads, 0.01, 1.0);
    assert!(
        update.read().unwrap().ratios().is_empty(),
        "a group of zeros"
    );
}

#[apply(every_device!)]
fn every_parameter_has_its_group_and_measuring_changes_nothing(#[case] device: &Device) {
    let config = ModelConfig {
        decoder: DecoderConfig {
            tied: false,
            ..DecoderConfig::new(32, 16, 2, 2)
        },
        sparse: Some(SparseConfig {
            layers: SparseLayers::Only(vec![1]),
            ..SparseConfig::new(4, 2, 12)
        }),
    };
    let device = &device.clone().autodiff();
    let model = config.init(device).unwrap();
    for param in params(&model) {
        let group = match param.path.as_str() {
            path if path.contains("norm") || path.contains("residual") => ParamGroup::Norms,
            path if path.contains(".attention.") => ParamGroup::Attention,
            path if path.contains(".router.") => ParamGroup::Router,
            path if path.contains(".experts.") => ParamGroup::Experts,
            path if path.contains(".feed_forward.") => ParamGroup::FeedForward,
            "embedding.weight" => ParamGroup::Embedding,
            "head.weight" => ParamGroup::Head,
            other => panic!("{other}"),
        };
        assert_eq!(ParamGroup::of(&param), group, "{}", param.path);
    }
    let grads = || {
        let tokens = Tensor::from_data([[1, 2, 3, 4]], device);
        let loss = model.forward(tokens).square().mean();
        GradientsParams::from_grads(loss.backward(), &model)
    };
    let recipe = AdamWConfig::default();
    let plain = Optimizer::new(recipe.clone(), &model).step(model.clone(), grads(), 0.01, 1.0);
    let (measured, update) =
        Optimizer::new(recipe, &model).measured_step(model.clone(), grads(), 0.01, 1.0);
    assert_eq!(parameters(&plain), parameters(&measured));
    let groups: BTreeSet<ParamGroup> = update.read().unwrap().ratios().into_keys().collect();
    let expected: BTreeSet<ParamGroup> = params(&model).iter().map(ParamGroup::of).collect();
    assert_eq!(groups, expected);
    assert_eq!(groups.len(), 7);
}
