//! Faults injected into what a device computes, and the place that the certificate names. A fault is a device that computes another
//! model than the yardstick does: one operation of one layer is off, everything before it is right.

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorReadError};
use hybridnorm_core::{Decoder, DecoderConfig};
use hybridnorm_interop::{Array, official};
use hybridnorm_moe::{FeedForwardLayer, LossConfig, ModelConfig};
use hybridnorm_testing::{apply, every_device, open};
use hybridnorm_train::recipe::{AdamWConfig, Decay, Schedule, ScheduleShape};
use hybridnorm_train::verify::{
    Agreement, Phase, TrajectoryWork, Work, Yardstick, compare, record,
};

fn config() -> DecoderConfig {
    DecoderConfig {
        n_kv_heads: 2,
        ..DecoderConfig::new(40, 32, 4, 3)
    }
}

fn work(epsilon: f64) -> Work {
    let tokens = |shape: Vec<usize>| {
        let count: usize = shape.iter().product();
        let values = (0..count)
            .map(|i| ((i * i * 7 + i * 3) % 40) as f64)
            .collect();
        Array { shape, values }
    };
    Work {
        tokens: tokens(vec![2, 9]),
        auxiliary: LossConfig::default(),
        names: official::names(),
        trajectory: Some(TrajectoryWork {
            batches: tokens(vec![4, 2, 9]),
            optimizer: AdamWConfig {
                epsilon,
                ..AdamWConfig::default()
            },
            schedule: Schedule {
                shape: ScheduleShape::Constant,
                peak: 1e-3,
                floor: 1.0,
                warmup_from: 1e-3,
                warmup: 0,
                total: 4,
                decay: Decay::default(),
            },
            keep: vec![4],
        }),
    }
}

const EPSILON: f64 = 1e-8;

type Model = Decoder<FeedForwardLayer>;

fn model(device: &Device) -> Model {
    ModelConfig::from(config()).init(device).unwrap()
}

fn yardstick() -> Yardstick {
    let flex = open("flex").clone().autodiff();
    let build = |device: &Device| Ok::<_, TensorReadError>(model(device));
    Yardstick::measure(&work(EPSILON), &flex, build).unwrap()
}

/// The device computes `faulty` of the model, flex the model itself.
fn verdict(device: &Device, epsilon: f64, faulty: impl FnOnce(Model) -> Model) -> Agreement {
    let device = device.clone().autodiff();
    let found = record(faulty(model(&device)), &work(epsilon), &device).unwrap();
    compare(&found, &yardstick())
}

pub fn scaled<const D: usize>(x: &Param<Tensor<D>>, factor: f64) -> Param<Tensor<D>> {
    x.clone()
        .map(|x| Tensor::from_inner(x.inner() * factor).require_grad())
}

/// Named as layer, sublayer and operation.
#[apply(every_device!)]
fn a_fault_in_the_forward_pass_is_placed(
    #[case] device: &Device,
    #[values("key norm", "down projection", "embedding", "final norm")] fault: &str,
) {
    let agreement = verdict(device, EPSILON, |mut model| {
        let block = &mut model.blocks[1];
        match fault {
            "key norm" => {
                let norm = &mut block.attention.norms.key.as_mut().unwrap().norm;
                norm.weight = norm.weight.as_ref().map(|weight| scaled(weight, 1.0001));
            }
            "down projection" => {
                let FeedForwardLayer::Dense(dense) = &mut block.feed_forward else {
                    unreachable!("a dense model")
                };
                dense.output.weight = scaled(&dense.output.weight, 1.0001);
            }
            "embedding" => model.embedding.weight = scaled(&model.embedding.weight, 1.0001),
            _ => {
                let norm = model.final_norm.as_mut().unwrap();
                norm.weight = norm.weight.as_ref().map(|weight| scaled(weight, 1.0001));
            }
        }
        model
    });
    let first = agreement.first.unwrap();
    let expected = match fault {
        "key norm" => "layer 1, attention, key norm",
        "down projection" => "layer 1, feed-forward, output projection",
        other => other,
    };
    assert_eq!(
        (first.phase, first.place.as_str()),
        (Phase::Forward, expected)
    );
    assert!(first.check.error > first.check.tolerance && agreement.failed > 0);
}

/// A backward pass that is wrong in one place while the forward pass is right.
#[apply(every_device!)]
fn a_fault_in_a_gradient_alone_is_placed(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let mut found = record(model(&device), &work(EPSILON), &device).unwrap();
    let (name, gradient) = &mut found.gradients[9];
    let expected = format!("gradient of {name}");
    for value in &mut gradient.as_mut().unwrap().values {
        *value *= 1.0001;
    }
    let first = compare(&found, &yardstick()).first.unwrap();
    assert_eq!((first.phase, first.place), (Phase::Backward, expected));
}

/// Another ε in AdamW: forward and backward are right, the first update is not.
#[apply(every_device!)]
fn a_fault_in_the_optimiser_is_placed(#[case] device: &Device) {
    let first = verdict(device, 1e-4, |model| model).first.unwrap();
    assert_eq!(first.phase, Phase::Trajectory);
    assert!(first.place.starts_with("step 2, "), "{}", first.place);
}

#[apply(every_device!)]
fn a_sound_device_agrees(#[case] device: &Device) {
    let agreement = verdict(device, EPSILON, |model| model);
    assert_eq!(agreement.first, None);
    assert!(agreement.checks > 100, "{}", agreement.checks);
}
