//! Router health in what a run shows and logs: a router that has collapsed is told of, and balancing repairs it.

use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use hybridnorm_core::Decoder;
use hybridnorm_moe::{FeedForwardLayer, SparseConfig};
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::engine::{Console, Record, train};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

const EXPERTS: usize = 8;
const STEPS: u64 = 40;

/// Eight experts, two for each token; nothing that balances them.
fn unbalanced() -> RunConfig {
    let mut sparse = SparseConfig::new(EXPERTS, 2, 12);
    sparse.losses.balance = 0.0;
    let mut config = tiny::sparse(STEPS, 4);
    config.training.seq = 16;
    config.training.eval_every = 0.into();
    config.training.checkpoint_every = 0.into();
    config.sparse = Some(sparse);
    config
}

/// Two experts' logits are far above the others' for every token: all have a component in common, and the router goes by it.
fn by_weights(model: &mut Decoder<FeedForwardLayer>, device: &Device) {
    let rows = [tiny::VOCAB, 1];
    let rest = model.embedding.weight.val().narrow(1, 1, 15);
    let common = Tensor::ones(rows, device);
    model.embedding.weight = Param::from_tensor(Tensor::cat(vec![common, rest], 1));
    for layer in 0..2 {
        let router = tiny::router(model, layer);
        let rest = router.linear.weight.val().narrow(0, 1, 15);
        let column = |expert| if expert < 2 { 1.0 } else { -1.0 };
        let common: Vec<f32> = (0..EXPERTS).map(column).collect();
        let common = Tensor::from_data(TensorData::new(common, [1, EXPERTS]), device);
        router.linear.weight = Param::from_tensor(Tensor::cat(vec![common, rest], 0));
    }
}

/// Two experts are chosen whatever their scores, which are from 0 to 1.
fn by_biases(model: &mut Decoder<FeedForwardLayer>, device: &Device) {
    for layer in 0..2 {
        let column = |expert| if expert < 2 { 1.0f32 } else { 0.0 };
        let bias: Vec<f32> = (0..EXPERTS).map(column).collect();
        let bias = Tensor::<1>::from_data(TensorData::new(bias, [EXPERTS]), device);
        let router = tiny::router(model, layer);
        router.selection_bias = Some(Param::from_tensor(bias).set_require_grad(false));
    }
}

/// What became of a run that begins with collapsed routers.
struct Outcome {
    /// (step, layer, collapsed) of every event in the log.
    events: Vec<(u64, usize, bool)>,
    /// Effective experts of each layer, in the first and in the last step.
    first: Vec<f64>,
    last: Vec<f64>,
    shown: String,
}

fn outcome(
    config: RunConfig,
    device: &Device,
    collapse: fn(&mut Decoder<FeedForwardLayer>, &Device),
) -> Outcome {
    let dir = TempDir::new().unwrap();
    tiny::begin_with(&config, dir.path(), device, |model| collapse(model, device));
    let screen = tiny::Screen::default();
    let mut request = tiny::request(config, dir.path(), device, true);
    request.console = Console::plain(screen.clone());
    train(request).unwrap();
    let steps = tiny::step_records(dir.path());
    let effective = |at: usize| {
        let routers = steps[at].routers.iter();
        routers.map(|router| router.effective_experts).collect()
    };
    Outcome {
        events: events(dir.path()),
        first: effective(0),
        last: effective(steps.len() - 1),
        shown: screen.text(),
    }
}

fn events(run: &Path) -> Vec<(u64, usize, bool)> {
    let event = |record| match record {
        Record::Router {
            step,
            layer,
            collapsed,
            ..
        } => Some((step, layer, collapsed)),
        _ => None,
    };
    tiny::records(run).into_iter().filter_map(event).collect()
}

/// Collapsed from the first step to the last, told once for each layer.
fn stays_collapsed(outcome: &Outcome) {
    let Outcome {
        events,
        first,
        last,
        shown,
    } = outcome;
    assert_eq!(events, &[(1, 0, true), (1, 1, true)]);
    assert!(first.iter().chain(last).all(|n| *n < 3.5), "{last:?}");
    let warnings = shown
        .matches("warning: step 1: the router of layer")
        .count();
    assert_eq!(warnings, 2, "{shown}");
    assert!(!shown.contains("recovered"), "{shown}");
}

/// Collapsed in the first step, told and recovered, and told so.
fn recovers(outcome: &Outcome) {
    let Outcome {
        events,
        first,
        last,
        shown,
    } = outcome;
    assert_eq!(events[..2], [(1, 0, true), (1, 1, true)]);
    assert!(first.iter().all(|n| *n < 3.5), "{first:?}");
    for layer in 0..2 {
        let of_layer = events.iter().filter(|event| event.1 == layer);
        let told: Vec<bool> = of_layer.map(|event| event.2).collect();
        assert_eq!(told, [true, false], "layer {layer}: {events:?}");
        let says = format!("the router of layer {layer} has recovered");
        assert_eq!(shown.matches(&says).count(), 1, "{shown}");
    }
    assert!(last.iter().all(|n| *n >= 5.0), "{last:?}");
}

#[apply(every_device!)]
fn a_collapsed_router_is_told_of_and_the_balancing_loss_repairs_it(#[case] device: &Device) {
    let mut config = unbalanced();
    config.schedule.lr = 3e-3;
    stays_collapsed(&outcome(config.clone(), device, by_weights));
    config.sparse.as_mut().unwrap().losses.balance = 0.1;
    recovers(&outcome(config, device, by_weights));
}

#[apply(every_device!)]
fn a_collapsed_router_is_told_of_and_moving_its_biases_repairs_it(#[case] device: &Device) {
    let mut config = unbalanced();
    config.schedule.lr = 1e-3;
    let rate = |config: &mut RunConfig, rate| {
        config.sparse.as_mut().unwrap().router.bias_update = Some(rate);
    };
    rate(&mut config, 1e-6);
    stays_collapsed(&outcome(config.clone(), device, by_biases));
    rate(&mut config, 0.02);
    recovers(&outcome(config, device, by_biases));
}

#[apply(every_device!)]
fn steps_tell_the_health_of_each_router_and_loads_only_where_an_evaluation_follows(
    #[case] device: &Device,
) {
    let dir = TempDir::new().unwrap();
    let screen = tiny::Screen::default();
    let mut request = tiny::request(tiny::sparse(4, 2), dir.path(), device, false);
    request.console = Console::plain(screen.clone());
    train(request).unwrap();
    for record in tiny::step_records(dir.path()) {
        let layers: Vec<usize> = record.routers.iter().map(|router| router.layer).collect();
        assert_eq!(layers, [0, 1]);
        for router in &record.routers {
            assert_eq!(router.dropped, 0.0);
            assert!((1.0..=4.0).contains(&router.effective_experts));
            assert!(router.entropy > 0.0 && router.entropy < 1.0 + 1e-6);
            let Some(load) = &router.load else {
                assert_eq!(record.step % 2, 1);
                continue;
            };
            assert_eq!(record.step % 2, 0);
            let fullest = load.iter().copied().fold(0.0, f64::max);
            assert_eq!(router.max_violation, fullest - 1.0);
            assert_eq!(router.dead, load.iter().filter(|n| **n == 0.0).count());
            // 4 sequences of 8 tokens with 2 experts each, over 4 experts.
            let copies: Vec<f64> = load.iter().map(|n| n * 16.0).collect();
            assert_eq!(copies.iter().sum::<f64>(), 64.0);
            assert!(copies.iter().all(|n| n.fract() == 0.0));
        }
        assert!(record.balance_loss.unwrap() > 0.0 && record.router_z_loss.unwrap() > 0.0);
    }
    let text = screen.text();
    let line = text.lines().find(|line| line.starts_with("step 4/4"));
    let line = line.unwrap();
    for part in ["  experts ", " max-load ", "x (layer "] {
        assert!(line.contains(part), "no {part:?} in: {line}");
    }
}

/// What was told before an interruption is not told again after it.
#[apply(every_device!)]
fn a_router_that_stays_collapsed_over_a_resume_is_told_of_once(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = unbalanced();
    config.training.steps = 4;
    config.sparse.as_mut().unwrap().router.bias_update = Some(1e-6);
    tiny::begin_with(&config, dir.path(), device, |model| {
        by_biases(model, device);
    });
    let request = tiny::request(config.clone(), dir.path(), device, true);
    assert!(train(tiny::stopping(request, 2)).unwrap().interrupted);
    assert_eq!(events(dir.path()), [(1, 0, true), (1, 1, true)]);
    let resumed = tiny::run(config, dir.path(), device, true).unwrap();
    assert_eq!((resumed.resumed_from, resumed.steps), (Some(2), 4));
    assert_eq!(events(dir.path()), [(1, 0, true), (1, 1, true)]);
}

#[apply(every_device!)]
fn the_share_of_dropped_copies_is_logged(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::sparse(2, 2);
    // Half its share is all that an expert may take, so at least half of the copies have no place.
    config.sparse.as_mut().unwrap().capacity_factor = Some(0.5);
    tiny::run(config, dir.path(), device, false).unwrap();
    for record in tiny::step_records(dir.path()) {
        for router in &record.routers {
            assert!((0.5..1.0).contains(&router.dropped), "{router:?}");
        }
    }
}

#[apply(every_device!)]
fn a_dense_run_says_nothing_of_experts(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let screen = tiny::Screen::default();
    let mut request = tiny::request(tiny::config(2, 4), dir.path(), device, false);
    request.console = Console::plain(screen.clone());
    train(request).unwrap();
    assert!(!screen.text().contains("expert"));
    let log = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    for absent in ["routers", "balance_loss", "router_z_loss"] {
        assert!(!log.contains(absent), "{absent} in: {log}");
    }
}
