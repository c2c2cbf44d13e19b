//! What is recorded of the layers: right, beside plain sums in f64, and without a trace in the weights.

use std::collections::BTreeMap;

use burn::optim::GradientsParams;
use burn::tensor::{Device, Int, Tensor, TensorData};
use hybridnorm_core::{Pass, loss};
use hybridnorm_moe::SparseLayers;
use hybridnorm_testing::{apply, every_device, gradients, parameters, values};
use hybridnorm_train::engine::{BatchSource, Diagnostics, PartFigures, Recompute, train};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny::{self, Hashed};

const FILES: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];

/// With a look at every second step.
fn looking(mut config: RunConfig) -> RunConfig {
    config.training.diagnostics_every = 2.into();
    config
}

/// Without times.
fn timeless(run: &TempDir) -> Vec<Diagnostics> {
    let mut records = tiny::diagnostics(run.path());
    for record in &mut records {
        assert!(record.seconds > 0.0);
        record.seconds = 0.0;
    }
    records
}

fn block_by_block(steps: u64, micro_batch: usize) -> RunConfig {
    let mut config = tiny::sparse(steps, micro_batch);
    config.training.recompute = Recompute::Block;
    config
}

#[apply(every_device!)]
fn looking_changes_nothing(
    #[case] device: &Device,
    #[values(tiny::config, tiny::sparse, tiny::muon, block_by_block)] config: fn(
        u64,
        usize,
    ) -> RunConfig,
    #[values(4, 2)] micro_batch: usize,
) {
    let (blind, seeing) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = config(6, micro_batch);
    tiny::run(config.clone(), blind.path(), device, false).unwrap();
    tiny::run(looking(config), seeing.path(), device, false).unwrap();
    assert_eq!(tiny::steps(blind.path()), tiny::steps(seeing.path()));
    for file in FILES {
        let hashes = [&blind, &seeing].map(|run| tiny::hash(run.path(), 6, file));
        assert_eq!(hashes[0], hashes[1], "{file}");
    }
    assert!(tiny::diagnostics(blind.path()).is_empty());
    let steps: Vec<u64> = timeless(&seeing).iter().map(|record| record.step).collect();
    assert_eq!(steps, [1, 2, 4, 6]);
}

#[apply(every_device!)]
fn a_resumed_run_records_the_same(#[case] device: &Device) {
    let (straight, broken) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = looking(tiny::config(6, 2));
    tiny::run(config.clone(), straight.path(), device, false).unwrap();
    tiny::run_until(config.clone(), broken.path(), device, 3).unwrap();
    tiny::run(config, broken.path(), device, true).unwrap();
    assert_eq!(timeless(&straight), timeless(&broken));
}

#[apply(every_device!)]
fn several_devices_record_what_one_does(#[case] device: &Device) {
    let record = |replicas: usize| {
        let dir = TempDir::new().unwrap();
        let mut request = tiny::request(looking(tiny::config(4, 2)), dir.path(), device, false);
        request.replicas = vec![device.clone(); replicas];
        train(request).unwrap();
        timeless(&dir)
    };
    assert_eq!(record(0), record(1));
}

/// The root of the sum of the squares of what `kept` picks by path.
fn norm(values: &BTreeMap<String, Vec<f64>>, kept: impl Fn(&str) -> bool) -> f64 {
    let kept = values.iter().filter(|(path, _)| kept(path));
    let squares = kept.flat_map(|(_, values)| values).map(|x| x * x);
    squares.sum::<f64>().sqrt()
}

fn is_norm(path: &str) -> bool {
    path.contains("norm") || path.contains("residual")
}

/// Every figure of `parts` beside that of the parameters whose paths belong to it.
fn check(
    parts: &PartFigures,
    layers: usize,
    tolerance: f64,
    figure: impl Fn(&dyn Fn(&str) -> bool) -> f64,
) {
    let near = |what: &str, found: Option<f64>, kept: &dyn Fn(&str) -> bool| {
        let (found, expected) = (found.unwrap(), figure(kept));
        let error = (found / expected - 1.0).abs();
        assert!(error < tolerance, "{what}: {found}, not {expected}");
    };
    near("embedding", parts.embedding, &|path| {
        path == "embedding.weight"
    });
    near("head", parts.head, &|path| path == "head.weight");
    near("other", parts.other, &|path| path == "final_norm.weight");
    for layer in 0..layers {
        let inside = |path: &str, name: &str| path.starts_with(&format!("blocks.{layer}.{name}"));
        near("attention", parts.attention[layer], &|path| {
            inside(path, "attention.") && !is_norm(path)
        });
        near("feed_forward", parts.feed_forward[layer], &|path| {
            inside(path, "feed_forward.") && !is_norm(path)
        });
        near("norms", parts.norms[layer], &|path| {
            inside(path, "") && is_norm(path)
        });
    }
}

/// The first step of a run in four micro-batches, block by block, clipped hard, beside the gradient of the whole batch at once.
#[apply(every_device!)]
fn figures_are_those_of_the_mean_gradient(#[case] device: &Device) {
    let mut config = looking(tiny::sparse(1, 1));
    let sparse = config.sparse.as_mut().unwrap();
    sparse.layers = SparseLayers::Only(vec![1]);
    (sparse.losses.balance, sparse.losses.z) = (0.0, 0.0);
    config.training.recompute = Recompute::Block;
    config.optimizer.adamw.max_grad_norm = 0.01;
    config.model.tied = false;
    let dir = TempDir::new().unwrap();
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    let found = tiny::diagnostics(dir.path()).remove(0);

    let training = &config.training;
    let source = Hashed {
        batch: training.batch,
        seq: training.seq,
    };
    let tokens = source.batch(0).unwrap().tokens;
    let tokens: Vec<i32> = tokens.into_iter().map(|id| id as i32).collect();
    let shape = [training.batch, training.seq + 1];
    let device = device.clone().autodiff();
    let model = config.model_config().init(&device).unwrap();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, shape), &device);
    let [input, target] = [0, 1].map(|start| tokens.clone().narrow(1, start, training.seq));
    let mut pass = Pass::causal().traced();
    let logits = model.forward_in(input, &mut pass);
    let grads = loss::next_token_loss(logits, target).backward();
    let grads = gradients(&model, &GradientsParams::from_grads(grads, &model));
    let layers = config.model.n_layers;
    check(&found.gradient_norm, layers, 1e-4, |kept| {
        norm(&grads, kept)
    });
    let all = norm(&grads, |_| true);
    let logged = tiny::step_records(dir.path())[0].grad_norm;
    assert!(
        (logged / all - 1.0).abs() < 1e-4 && all > 0.1,
        "{logged}, not {all}"
    );

    let before = parameters(&model);
    check(&found.weight_norm, layers, 1e-5, |kept| norm(&before, kept));
    let mut moved = BTreeMap::new();
    for (path, after) in tiny::tensors(dir.path(), 1, FILES[0]) {
        let after = after.iter().map(|x| f64::from(*x));
        let moves = after
            .zip(&before[&path])
            .map(|(after, before)| after - before);
        moved.insert(path.clone(), moves.collect::<Vec<f64>>());
    }
    check(&found.update_ratio, layers, 1e-3, |kept| {
        norm(&moved, kept) / norm(&before, kept)
    });

    // The first micro-batch has one sequence: the first of the batch.
    assert_eq!(found.forward.sequences, 1);
    let trace = pass.into_trace().unwrap();
    for (layer, found) in found.forward.activation_rms.iter().enumerate() {
        let values_of = trace.values().iter().rev();
        let mut last = values_of.filter(|(place, _)| place.layer == Some(layer));
        let stream = last.next().unwrap().1.clone().narrow(0, 0, 1);
        let stream = values(stream);
        let rms = (stream.iter().map(|x| x * x).sum::<f64>() / stream.len() as f64).sqrt();
        let error = (found.unwrap() / rms - 1.0).abs();
        assert!(error < 1e-5, "layer {layer}: {found:?}, not {rms}");
    }
    assert_eq!(found.forward.attention_entropy.len(), layers);
}
