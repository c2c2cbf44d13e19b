//! Checkpoints that a crash or a disk has damaged, and steps that went wrong.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use hybridnorm_testing::any_device;
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::checkpoint::{CheckpointError, load_model};
use hybridnorm_train::data::{DataError, StepBatch};
use hybridnorm_train::engine::{BatchSource, TrainError, train};
use rstest::rstest;
use tempfile::TempDir;

use crate::tiny;

fn truncate(file: &Path) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn empty(file: &Path) {
    fs::write(file, []).unwrap();
}

fn delete(file: &Path) {
    fs::remove_file(file).unwrap();
}

/// Every way to damage every file of the newest generation: the run resumes from the one before it and ends where an
/// undamaged one ends.
#[rstest]
fn a_damaged_generation_is_named_and_skipped(
    #[values(
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "manifest.json"
    )]
    file: &str,
    #[values(truncate, flip, empty, delete)] damage: fn(&Path),
) {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let config = tiny::config(6, 4);
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    let expected = tiny::hash(dir.path(), 6, "model.safetensors");
    let newest = dir.path().join("checkpoints/step-6");
    damage(&newest.join(file));
    let error = load_model(&newest, &config.model_config(), device).unwrap_err();
    let named = error.to_string();
    assert!(named.contains(file) || file == "manifest.json", "{named}");
    assert!(!named.contains('\n'), "{named}");

    let resumed = tiny::run(config, dir.path(), device, true).unwrap();
    assert_eq!(resumed.resumed_from, Some(4));
    assert_eq!(tiny::hash(dir.path(), 6, "model.safetensors"), expected);
    assert_eq!(tiny::steps(dir.path()).len(), 6);
}

#[apply(every_device!)]
fn a_crash_in_the_middle_of_a_save_leaves_the_generation_before_it(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(6, 4);
    tiny::run_until(config.clone(), dir.path(), device, 3).unwrap();
    let unfinished = dir.path().join("checkpoints/step-4.tmp");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("model.safetensors"), b"half").unwrap();
    let log = dir.path().join("metrics.jsonl");
    let mut text = fs::read(&log).unwrap();
    text.extend_from_slice(b"{\"kind\":\"step\",\"step\":4,\"to");
    fs::write(&log, text).unwrap();
    let resumed = tiny::run(config, dir.path(), device, true).unwrap();
    assert_eq!(resumed.resumed_from, Some(3));
    assert!(!unfinished.exists());
    let numbers: Vec<u64> = tiny::steps(dir.path()).iter().map(|step| step.0).collect();
    assert_eq!(numbers, (1..=6).collect::<Vec<_>>());
}

#[apply(every_device!)]
fn a_run_without_a_whole_generation_is_not_restarted_silently(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(2, 4);
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    flip(&dir.path().join("checkpoints/step-2/model.safetensors"));
    let error = tiny::run(config, dir.path(), device, true).unwrap_err();
    assert!(
        matches!(
            error,
            TrainError::Checkpoint(CheckpointError::NoneWhole { .. })
        ),
        "{error}"
    );
}

struct Constant(Vec<u32>);

impl BatchSource for Constant {
    fn batch(&self, _step: u64) -> Result<StepBatch, DataError> {
        Ok(StepBatch::whole(self.0.clone(), 4))
    }
}

#[apply(every_device!)]
fn a_loss_that_is_not_finite_ends_the_run_before_the_weights_are_touched(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::config(20, 4);
    // Logits so large that f32 overflows in the second step at the latest.
    config.schedule.lr = 1e30;
    config.training.checkpoint_every = 0.into();
    let error = tiny::run(config, dir.path(), device, false).unwrap_err();
    assert!(matches!(error, TrainError::NonFinite { .. }), "{error}");
    assert!(!dir.path().join("checkpoints").exists());
}

#[rstest]
#[case::too_short(vec![0; 35], "35 tokens")]
#[case::unknown_token(vec![32; 36], "token id 32 is not below the model's 32")]
fn a_batch_that_the_model_cannot_take_is_refused(#[case] batch: Vec<u32>, #[case] says: &str) {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let mut request = tiny::request(tiny::config(2, 4), dir.path(), device, false);
    request.batches = Arc::new(Constant(batch.clone()));
    let error = train(request).unwrap_err().to_string();
    assert!(error.contains(says) && error.contains("step 1"), "{error}");
}
