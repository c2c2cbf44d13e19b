//! Steps that went wrong: none of them reaches the weights, all of them are told, and resuming changes nothing.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use hybridnorm_testing::{any_device, apply, every_device};
use hybridnorm_train::data::{DataError, StepBatch};
use hybridnorm_train::engine::{BatchSource, Record, TrainError, TrainSummary, train};
use hybridnorm_train::guard::Action;
use hybridnorm_train::run::RunConfig;
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;

use crate::tiny;

const STEPS: u64 = 60;
/// The step whose batch is poisoned, counted from 1; checkpoints are written every ten.
const POISONED: u64 = 45;
const MODEL: &str = "model.safetensors";

/// Counts up from a token that depends on the step: easily learnt. But for one batch, in which every token is `poison`.
struct Poisoned {
    poison: u32,
}

impl BatchSource for Poisoned {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        let [sequences, length] = [4, 9];
        let place = 0..sequences * length;
        let tokens = place
            .map(|place| match step + 1 == POISONED {
                true => self.poison,
                false => (step as u32 * 7 + place / length * 5 + place % length) % 30,
            })
            .collect();
        Ok(StepBatch::whole(tokens, sequences as usize))
    }

    fn documents(&self, step: u64) -> Vec<String> {
        vec![format!("document {step}")]
    }

    fn identity(&self) -> Option<String> {
        Some("counting".to_string())
    }
}

fn config(action: Action) -> RunConfig {
    let mut config = tiny::config(STEPS, 2);
    config.training.eval_every = 0.into();
    config.training.checkpoint_every = 10.into();
    config.training.keep_checkpoints = 0;
    config.guard.window = 16;
    config.guard.spike = action;
    config
}

fn run(
    config: RunConfig,
    dir: &Path,
    device: &Device,
    poison: u32,
    resume: bool,
    stop: Option<u64>,
) -> Result<TrainSummary, TrainError> {
    let mut request = tiny::request(config, dir, device, resume);
    request.batches = Arc::new(Poisoned { poison });
    train(match stop {
        Some(step) => tiny::stopping(request, step),
        None => request,
    })
}

fn guards(run: &Path) -> Vec<(u64, u64, Action)> {
    let event = |record| match record {
        Record::Guard {
            step,
            refused,
            action,
            ..
        } => Some((step, refused, action)),
        _ => None,
    };
    tiny::records(run).into_iter().filter_map(event).collect()
}

fn incident(run: &Path) -> Value {
    let path = run.join(format!("incidents/step-{POISONED}.json"));
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Skipped or rolled back, whatever the poison was: the same bytes, and a model that has learnt.
#[apply(every_device!)]
fn a_poisoned_batch_never_reaches_the_weights(#[case] device: &Device) {
    let mut hashes = Vec::new();
    for (action, poison) in [
        (Action::Skip, 31),
        (Action::Skip, 30),
        (Action::Rollback, 31),
    ] {
        let dir = TempDir::new().unwrap();
        let summary = run(config(action), dir.path(), device, poison, false, None).unwrap();
        assert_eq!(summary.refused, [POISONED], "{action}");
        assert!(summary.loss.unwrap() < 1.0, "{summary:?}");
        let stands = match action {
            Action::Rollback => POISONED / 10 * 10,
            _ => POISONED,
        };
        assert_eq!(guards(dir.path()), [(stands, POISONED, action)]);
        let steps: Vec<u64> = tiny::steps(dir.path()).iter().map(|step| step.0).collect();
        let expected: Vec<u64> = (1..=STEPS).filter(|step| *step != POISONED).collect();
        assert_eq!(steps, expected, "{action}");
        for file in [MODEL, "optimizer.safetensors"] {
            hashes.push((file, tiny::hash(dir.path(), STEPS, file)));
        }
    }
    assert_eq!(hashes[..2], hashes[2..4], "another poison");
    assert_eq!(hashes[..2], hashes[4..], "skipped or rolled back");
}

/// Stopped before the poison, in it and after it, and resumed: the bytes of a run left alone.
#[apply(every_device!)]
fn a_guarded_run_resumes_bit_for_bit(
    #[case] device: &Device,
    #[values(Action::Skip, Action::Rollback)] action: Action,
) {
    let straight = TempDir::new().unwrap();
    run(config(action), straight.path(), device, 31, false, None).unwrap();
    for stop in [POISONED - 2, POISONED, POISONED + 2] {
        let broken = TempDir::new().unwrap();
        let first = run(config(action), broken.path(), device, 31, false, Some(stop)).unwrap();
        assert!(first.interrupted, "{stop}");
        let second = run(config(action), broken.path(), device, 31, true, None).unwrap();
        assert_eq!(second.refused, [POISONED], "{stop}");
        let hash = |dir: &TempDir| tiny::hash(dir.path(), STEPS, MODEL);
        assert_eq!(hash(&broken), hash(&straight), "{stop}");
        assert_eq!(tiny::steps(broken.path()), tiny::steps(straight.path()));
    }
}

/// As after a kill behind the rollback, and before the next checkpoint: the step is passed over, and nothing is told twice.
#[apply(every_device!)]
fn a_rollback_is_known_before_the_next_checkpoint(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let rollback = || config(Action::Rollback);
    run(rollback(), dir.path(), device, 31, false, None).unwrap();
    let metrics = |dir: &Path| (guards(dir), tiny::steps(dir));
    let (hash, told) = (tiny::hash(dir.path(), STEPS, MODEL), metrics(dir.path()));
    for step in [50, STEPS] {
        fs::remove_dir_all(dir.path().join(format!("checkpoints/step-{step}"))).unwrap();
    }
    fs::remove_dir_all(dir.path().join("incidents")).unwrap();
    let again = run(rollback(), dir.path(), device, 31, true, None).unwrap();
    assert_eq!(again.refused, [POISONED]);
    assert!(
        !dir.path().join("incidents").exists(),
        "it went wrong again"
    );
    assert_eq!(tiny::hash(dir.path(), STEPS, MODEL), hash);
    assert_eq!(metrics(dir.path()), told);
}

#[test]
fn a_spike_can_end_the_run_and_says_all_about_it() {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let stop = config(Action::Stop);
    for resume in [false, true] {
        let error = run(stop.clone(), dir.path(), device, 31, resume, None).unwrap_err();
        assert!(
            matches!(error, TrainError::Spike { step: POISONED, .. }),
            "{error}"
        );
    }
    assert!(dir.path().join("checkpoints/step-40").is_dir());
    assert_eq!(guards(dir.path()), [(POISONED, POISONED, Action::Stop)]);
    let incident = incident(dir.path());
    assert_eq!(incident["action"], "stop");
    assert_eq!(
        incident["documents"][0],
        format!("document {}", POISONED - 1)
    );
    assert_eq!(incident["tokens"][3][8], 31);
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let layers = incident["layer_grad_norms"].as_object().unwrap();
    let squares: f64 = layers.values().map(|norm| number(norm).powi(2)).sum();
    let global = number(&incident["grad_norm"]);
    assert!((squares.sqrt() / global - 1.0).abs() < 1e-6, "{incident}");
    let names: Vec<&String> = layers.keys().collect();
    assert!(
        names.len() > 3 && layers.contains_key("blocks.1"),
        "{names:?}"
    );
}

#[test]
fn a_warning_changes_nothing_that_is_computed() {
    let device = &any_device();
    let weights = |action: Action, sigmas: f64| {
        let dir = TempDir::new().unwrap();
        let mut config = config(action);
        config.guard.sigmas = sigmas;
        run(config, dir.path(), device, 31, false, None).unwrap();
        (
            tiny::hash(dir.path(), STEPS, MODEL),
            guards(dir.path()).len(),
        )
    };
    let (warned, warnings) = weights(Action::Warn, 6.0);
    let (unguarded, none) = weights(Action::Stop, 1e9);
    assert_eq!(warned, unguarded);
    assert!(warnings > 0 && none == 0);
    assert_ne!(warned, weights(Action::Skip, 6.0).0);
}

/// A token whose embedding is so large that its square is infinite, where attention sees it as it is.
#[apply(every_device!)]
fn what_is_not_finite_can_be_skipped(
    #[case] device: &Device,
    #[values(Action::Skip, Action::Rollback)] action: Action,
) {
    let dir = TempDir::new().unwrap();
    let mut config = config(Action::Warn);
    config.guard.non_finite = action;
    config.model.tied = false;
    config.model.placement = "post".parse().unwrap();
    tiny::begin_with(&config, dir.path(), device, |model| {
        let weight = &mut model.embedding.weight;
        *weight = weight.clone().map(|weight| {
            let row = Tensor::full([1, 16], 1e30, &weight.device());
            weight.slice_assign([31..32, 0..16], row)
        });
    });
    let summary = run(config, dir.path(), device, 31, true, None).unwrap();
    assert_eq!(summary.refused, [POISONED]);
    let incident = incident(dir.path());
    let message = incident["message"].as_str().unwrap();
    assert!(
        message.contains("NaN") || message.contains("inf"),
        "{message}"
    );
}

#[test]
fn patience_ends() {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let mut config = tiny::config(40, 4);
    // Every step goes wrong after the first few.
    config.schedule.lr = 1e30;
    config.training.checkpoint_every = 0.into();
    config.guard.non_finite = Action::Skip;
    config.guard.patience = 3;
    let error = tiny::run(config, dir.path(), device, false).unwrap_err();
    assert!(
        matches!(error, TrainError::OutOfPatience { patience: 3, .. }),
        "{error}"
    );
    let skipped = guards(dir.path());
    assert_eq!(skipped.len(), 4, "{skipped:?}");
}

/// The weights of a run that goes on are those of its checkpoints, not of the step that failed.
#[rstest]
fn a_stop_leaves_the_checkpoint_resumable_with_another_guard() {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    run(config(Action::Stop), dir.path(), device, 31, false, None).unwrap_err();
    let mut request = tiny::request(config(Action::Skip), dir.path(), device, true);
    request.batches = Arc::new(Poisoned { poison: 31 });
    request.allow = vec!["guard.spike".to_string()];
    assert_eq!(train(request).unwrap().refused, [POISONED]);
}
