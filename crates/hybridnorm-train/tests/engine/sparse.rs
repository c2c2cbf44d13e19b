//! Sparse experts in training: resume, accumulation, selection biases, noise, faults.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Device, Int, Tensor};
use hybridnorm_moe::{RoutingError, SparseLayers};
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::data::{DataError, StepBatch};
use hybridnorm_train::engine::{
    BatchSource, Evaluation, StepRecord, TokenBatch, TrainError, train,
};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

const FILES: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];
/// A power of two, so that sums of it are exact.
const RATE: f64 = 0.25;

/// Everything that carries state or noise: both losses, selection biases, jitter.
fn eventful(steps: u64, micro_batch: usize) -> RunConfig {
    let mut config = tiny::sparse(steps, micro_batch);
    if let Some(sparse) = &mut config.sparse {
        sparse.router.jitter = Some(0.125);
        sparse.router.bias_update = Some(RATE);
    }
    config
}

fn without_clock(record: StepRecord) -> StepRecord {
    StepRecord {
        tokens_per_s: 0.0,
        elapsed_s: 0.0,
        ..record
    }
}

fn records(run: &Path) -> Vec<StepRecord> {
    let records = tiny::step_records(run).into_iter();
    records.map(without_clock).collect()
}

#[apply(every_device!)]
fn a_resumed_sparse_run_equals_a_straight_one_bit_for_bit(
    #[case] device: &Device,
    #[values(4, 2)] micro_batch: usize,
    #[values(3, 4)] stop: u64,
) {
    let (straight, broken) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = eventful(8, micro_batch);
    tiny::run(config.clone(), straight.path(), device, false).unwrap();
    let first = tiny::run_until(config.clone(), broken.path(), device, stop).unwrap();
    assert!(first.interrupted);
    let second = tiny::run(config, broken.path(), device, true).unwrap();
    assert_eq!(second.resumed_from, Some(stop));
    for file in FILES {
        let hashes = [straight.path(), broken.path()].map(|run| tiny::hash(run, 8, file));
        assert_eq!(hashes[0], hashes[1], "{file} on {device:?}");
    }
    let [straight, broken] = [straight.path(), broken.path()].map(records);
    assert_eq!(straight.len(), 8);
    assert_eq!(straight, broken);
}

/// Each bias is the sum of ±rate by the loads that the log holds, to the bit: neither AdamW nor its decay touches it.
#[apply(every_device!)]
fn selection_biases_follow_the_load_and_nothing_else(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = eventful(6, 2);
    config.training.checkpoint_every = 1.into();
    config.training.keep_checkpoints = 0;
    config.training.eval_every = 1.into();
    config.optimizer.adamw.weight_decay = 0.5;
    tiny::run(config, dir.path(), device, false).unwrap();
    let mut expected = [[0.0; 4]; 2];
    for record in tiny::step_records(dir.path()) {
        let weights = tiny::tensors(dir.path(), record.step, FILES[0]);
        for router in &record.routers {
            let load = router.load.as_ref().unwrap();
            let bias = &mut expected[router.layer];
            for (bias, load) in bias.iter_mut().zip(load) {
                *bias += match load {
                    load if *load < 1.0 => RATE as f32,
                    load if *load > 1.0 => -RATE as f32,
                    _ => 0.0,
                };
            }
            let layer = router.layer;
            let stored = &weights[&format!("blocks.{layer}.feed_forward.router.selection_bias")];
            assert_eq!(stored.as_slice(), bias.as_slice(), "step {}", record.step);
        }
    }
    assert!(expected.iter().flatten().any(|bias| *bias != 0.0));
    let moments = tiny::tensors(dir.path(), 6, FILES[1]);
    assert!(moments.contains_key("first.blocks.1.feed_forward.router.linear.weight"));
    assert!(!moments.keys().any(|name| name.contains("selection_bias")));
}

/// With the z-loss, which is a mean over tokens, but without load balancing, which is not.
#[apply(every_device!)]
fn accumulated_sparse_micro_batches_equal_one_batch_to_rounding(#[case] device: &Device) {
    let run = |micro_batch| {
        let dir = TempDir::new().unwrap();
        let mut config = tiny::sparse(2, micro_batch);
        config.sparse.as_mut().unwrap().losses.balance = 0.0;
        config.training.checkpoint_every = 1.into();
        tiny::run(config, dir.path(), device, false).unwrap();
        let first = tiny::step_records(dir.path()).remove(0);
        (first, tiny::tensors(dir.path(), 1, FILES[1]))
    };
    let (whole, moments) = run(4);
    assert_eq!(whole.balance_loss, None);
    for micro_batch in [2, 1] {
        let (parts, accumulated) = run(micro_batch);
        let near = |a: f64, b: f64| (a / b - 1.0).abs();
        let z = |record: &StepRecord| record.router_z_loss.unwrap();
        assert!(near(whole.loss, parts.loss) < 1e-5);
        assert!(near(z(&whole), z(&parts)) < 1e-5);
        assert!(near(whole.grad_norm, parts.grad_norm) < 1e-4);
        assert_eq!(whole.routers.len(), 2);
        for (a, b) in whole.routers.iter().zip(&parts.routers) {
            // Counts, so equal to the bit.
            assert_eq!((a.dead, a.max_violation), (b.dead, b.max_violation));
            assert!((a.entropy - b.entropy).abs() < 1e-5);
        }
        assert_eq!(
            moments.keys().collect::<Vec<_>>(),
            accumulated.keys().collect::<Vec<_>>()
        );
        for (name, values) in &moments {
            let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
            let pairs = values.iter().zip(&accumulated[name]);
            let error = pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(error < 1e-3 * largest, "{name}: {error} of {largest}");
        }
    }
}

/// One half of each of another source's batches.
struct Half(Arc<dyn BatchSource>, usize);

impl BatchSource for Half {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        let StepBatch { tokens, masked } = self.0.batch(step)?;
        let (half, rows) = (tokens.len() / 2, masked.len() / 2);
        let tokens = tokens[self.1 * half..][..half].to_vec();
        Ok(StepBatch::whole(tokens, rows))
    }
}

#[apply(every_device!)]
fn losses_of_routers_are_means_over_the_micro_batches(#[case] device: &Device) {
    let first_step = |batch: usize, half: Option<usize>| {
        let dir = TempDir::new().unwrap();
        let mut request = tiny::request(tiny::sparse(1, 2), dir.path(), device, false);
        request.config.training.batch = batch;
        if let Some(half) = half {
            request.batches = Arc::new(Half(request.batches, half));
        }
        train(request).unwrap();
        tiny::step_records(dir.path()).remove(0)
    };
    let whole = first_step(4, None);
    let halves = [0, 1].map(|half| first_step(2, Some(half)));
    // The log's numbers are read back to the last digit or the one before it.
    let is_mean = |pick: fn(&StepRecord) -> f64| {
        let mean = halves.iter().map(pick).sum::<f64>() / 2.0;
        assert!((pick(&whole) / mean - 1.0).abs() < 1e-14, "{whole:?}");
    };
    let balance = |record: &StepRecord| record.balance_loss.unwrap();
    assert_ne!(balance(&halves[0]), balance(&halves[1]));
    is_mean(|record| record.loss);
    is_mean(|record| record.balance_loss.unwrap());
    is_mean(|record| record.router_z_loss.unwrap());
    // Times its weight; perfect balance is 1 in the authors' convention.
    assert!(
        balance(&whole) > 0.01 && balance(&whole) < 0.04,
        "{whole:?}"
    );
}

#[apply(every_device!)]
fn noise_is_for_training_only(#[case] device: &Device) {
    let train_with = |jitter: Option<f64>| {
        let dir = TempDir::new().unwrap();
        let mut config = tiny::sparse(1, 2);
        config.sparse.as_mut().unwrap().router.jitter = jitter;
        let mut request = tiny::request(config, dir.path(), device, false);
        let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4, 5, 6]], device);
        request.evaluate = Some(Box::new(move |model, _| {
            let [a, b] = [Some(1), Some(2)].map(|noise| {
                let batch = TokenBatch::new(tokens.clone());
                let loss = model.loss(TokenBatch { noise, ..batch });
                loss.into_scalar::<f32>()
            });
            assert_eq!(a, b);
            Ok(Evaluation {
                nats_per_token: f64::from(a),
                bits_per_byte: 1.0,
            })
        }));
        train(request).unwrap();
        tiny::step_records(dir.path()).remove(0).loss
    };
    assert_ne!(train_with(None), train_with(Some(0.5)));
    assert_eq!(train_with(Some(0.5)), train_with(Some(0.5)));
}

/// The parameters of dense and sparse layers side by side, by the names that checkpoints have had from the beginning.
#[apply(every_device!)]
fn checkpoints_name_parameters_without_the_kind_of_layer(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::sparse(2, 4);
    config.sparse.as_mut().unwrap().layers = SparseLayers::Every(2);
    config.training.eval_every = 0.into();
    tiny::run(config, dir.path(), device, false).unwrap();
    let weights: BTreeMap<String, usize> = tiny::tensors(dir.path(), 2, FILES[0])
        .into_iter()
        .map(|(name, values)| (name, values.len()))
        .filter(|(name, _)| name.contains("feed_forward."))
        .collect();
    let d_ff = 3 * 16 * hybridnorm_core::DecoderConfig::new(tiny::VOCAB, 16, 2, 2).d_ff;
    let expected = [
        ("blocks.0.feed_forward.input.weight", d_ff / 3 * 2),
        ("blocks.0.feed_forward.output.weight", d_ff / 3),
        ("blocks.1.feed_forward.experts.down", 4 * 12 * 16),
        ("blocks.1.feed_forward.experts.gate", 4 * 12 * 16),
        ("blocks.1.feed_forward.experts.up", 4 * 12 * 16),
        ("blocks.1.feed_forward.router.linear.weight", 16 * 4),
    ];
    let expected = expected.map(|(name, n)| (name.to_string(), n));
    assert_eq!(weights, BTreeMap::from(expected));
    let routers: Vec<Vec<usize>> = tiny::step_records(dir.path())
        .iter()
        .map(|record| record.routers.iter().map(|router| router.layer).collect())
        .collect();
    assert_eq!(routers, [[1], [1]]);
}

/// Finite weights whose products are not: the layer is named, and what was there before the step is all there is.
#[apply(every_device!)]
fn a_router_whose_logits_overflow_is_named(
    #[case] device: &Device,
    #[values(0, 1)] layer: usize,
    #[values(4, 2)] micro_batch: usize,
) {
    let dir = TempDir::new().unwrap();
    let config = tiny::sparse(2, micro_batch);
    tiny::begin_with(&config, dir.path(), device, |model| {
        let router = tiny::router(model, layer);
        let weight = Tensor::full([16, 4], f32::MAX, device);
        router.linear.weight = Param::from_tensor(weight);
    });
    let before = tiny::hash(dir.path(), 0, FILES[0]);
    let error = tiny::run(config, dir.path(), device, true).unwrap_err();
    let text = error.to_string();
    match error {
        TrainError::Routing {
            step: 1,
            micro_batch: 1,
            source: RoutingError::NonFinite { layer: found, .. },
        } => assert_eq!(found, Some(layer)),
        other => panic!("{other}"),
    }
    let says = format!("not finite in layer {layer}");
    assert!(text.contains(&says) && text.contains("step 1"), "{text}");
    assert_eq!(tiny::hash(dir.path(), 0, FILES[0]), before);
    assert!(!dir.path().join("checkpoints/step-2").exists());
    assert_eq!(tiny::step_records(dir.path()), []);
}

/// Not everything that overflows in a sparse model is a router's doing.
#[apply(every_device!)]
fn a_head_that_overflows_is_not_blamed_on_a_router(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::sparse(2, 4);
    config.model.tied = false;
    tiny::begin_with(&config, dir.path(), device, |model| {
        let weight = Tensor::full([16, tiny::VOCAB], f32::MAX, device);
        model.head.as_mut().unwrap().weight = Param::from_tensor(weight);
    });
    let error = tiny::run(config, dir.path(), device, true).unwrap_err();
    let named = matches!(
        error,
        TrainError::NonFinite {
            what: "loss",
            step: 1,
            ..
        }
    );
    assert!(named, "{error}");
}
