//! Faults in sparse layers, and ties between experts: what is a fault is placed, and what is a tie is said to be one.

use burn::tensor::{Device, Tensor, TensorReadError};
use hybridnorm_core::{Decoder, DecoderConfig};
use hybridnorm_interop::{Array, official};
use hybridnorm_moe::{FeedForwardLayer, ModelConfig, SparseConfig, SparseFeedForward};
use hybridnorm_testing::{any_device, apply, every_device, open};
use hybridnorm_train::recipe::{AdamWConfig, Decay, Schedule, ScheduleShape};
use hybridnorm_train::verify::{Phase, Record, TrajectoryWork, Work, Yardstick, compare, record};

use crate::injected::scaled;

type Model = Decoder<FeedForwardLayer>;

/// Experts 0 and 1 of block 1 have the same row in the router: their logits are equal for every token.
fn model(device: &Device) -> Model {
    let config = ModelConfig {
        decoder: DecoderConfig::new(40, 32, 4, 2),
        sparse: Some(SparseConfig::new(4, 2, 24)),
    };
    let mut model = config.init(device).unwrap();
    let router = &mut sparse(&mut model).router.linear;
    router.weight = router.weight.clone().map(|weight| {
        let weight = weight.inner();
        let first = weight.clone().narrow(1, 0, 1);
        let rest = weight.narrow(1, 2, 2);
        Tensor::from_inner(Tensor::cat(vec![first.clone(), first, rest], 1)).require_grad()
    });
    model
}

fn sparse(model: &mut Model) -> &mut SparseFeedForward {
    match &mut model.blocks[1].feed_forward {
        FeedForwardLayer::Sparse(sparse) => sparse,
        FeedForwardLayer::Dense(_) => unreachable!("a sparse model"),
    }
}

fn work() -> Work {
    let tokens = |shape: Vec<usize>| {
        let count: usize = shape.iter().product();
        let values = (0..count).map(|i| ((i * i * 7 + i * 3) % 40) as f64);
        Array {
            shape,
            values: values.collect(),
        }
    };
    Work {
        tokens: tokens(vec![2, 9]),
        auxiliary: SparseConfig::new(4, 2, 24).losses,
        names: official::names(),
        trajectory: Some(TrajectoryWork {
            batches: tokens(vec![2, 2, 9]),
            optimizer: AdamWConfig::default(),
            schedule: Schedule {
                shape: ScheduleShape::Constant,
                peak: 1e-3,
                floor: 1.0,
                warmup_from: 1e-3,
                warmup: 0,
                total: 2,
                decay: Decay::default(),
            },
            keep: vec![2],
        }),
    }
}

fn yardstick() -> Yardstick {
    let flex = open("flex").clone().autodiff();
    let build = |device: &Device| Ok::<_, TensorReadError>(model(device));
    Yardstick::measure(&work(), &flex, build).unwrap()
}

#[apply(every_device!)]
fn a_fault_in_a_sparse_layer_is_placed(
    #[case] device: &Device,
    #[values("router logits", "activation", "output projection")] operation: &str,
) {
    let device = device.clone().autodiff();
    let mut faulty = model(&device);
    let layer = sparse(&mut faulty);
    match operation {
        "router logits" => layer.router.linear.weight = scaled(&layer.router.linear.weight, 1.0001),
        "activation" => layer.experts.gate = scaled(&layer.experts.gate, 1.0001),
        _ => layer.experts.down = scaled(&layer.experts.down, 1.0001),
    }
    let found = record(faulty, &work(), &device).unwrap();
    let first = compare(&found, &yardstick()).first.unwrap();
    let expected = format!("layer 1, feed-forward, {operation}");
    assert_eq!((first.phase, first.place), (Phase::Forward, expected));
}

/// The record of a device that sends one token, which should go to expert `from`, to expert `to` instead.
fn rerouted(device: &Device, from: f64, to: f64) -> Record {
    let device = device.clone().autodiff();
    let mut found = record(model(&device), &work(), &device).unwrap();
    let tokens = found.routing[1].chosen.values.chunks_mut(2);
    let mut tokens = tokens.filter(|chosen| chosen.contains(&from) && !chosen.contains(&to));
    let token = tokens.next().unwrap();
    let chosen = token.iter_mut().find(|expert| **expert == from).unwrap();
    *chosen = to;
    found
}

#[test]
fn another_expert_is_a_fault() {
    let found = rerouted(&any_device(), 0.0, 3.0);
    let agreement = compare(&found, &yardstick());
    let first = agreement.first.unwrap();
    assert_eq!(first.place, "layer 1, feed-forward, chosen experts");
    assert!(first.check.at.contains("expert 3 instead of 0"), "{first}");
    assert_eq!(agreement.ties, []);
}

/// The comparison of the pass ends at the tie, and says so; the trajectory is another one.
#[test]
fn a_tie_is_said_to_be_one() {
    let device = any_device().clone().autodiff();
    let mut found = record(model(&device), &work(), &device).unwrap();
    let whole = compare(&found, &yardstick());
    for chosen in found.routing[1].chosen.values.chunks_mut(2) {
        if let [0.0, 1.0] = chosen {
            chosen.swap(0, 1);
        }
    }
    let agreement = compare(&found, &yardstick());
    assert_eq!((agreement.first, agreement.ties.len()), (None, 1));
    let tie = &agreement.ties[0];
    assert_eq!((tie.phase, tie.flip.layer), (Phase::Forward, 1));
    assert!(tie.to_string().contains("expert 1 instead of 0"), "{tie}");
    assert!(agreement.checks < whole.checks && agreement.checks > 10);
}
