//! Data-parallel devices: the same figures as one device that accumulates, and the same again.

use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use hybridnorm_core::Decoder;
use hybridnorm_moe::FeedForwardLayer;
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::data::{DataError, StepBatch};
use hybridnorm_train::engine::{BatchSource, TrainError, TrainSummary, train};
use hybridnorm_train::guard::Action;
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

const FILES: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];

/// A run on as many copies of the model as there are `devices`.
fn on(config: RunConfig, dir: &TempDir, devices: &[&Device]) -> Result<TrainSummary, TrainError> {
    let mut request = tiny::request(config, dir.path(), devices[0], false);
    request.replicas = devices[1..].iter().copied().cloned().collect();
    train(request)
}

/// Everything that a run leaves behind, to the bit: the records of its steps, without their times, and two files.
fn traces(config: &RunConfig, devices: &[&Device]) -> (String, Vec<String>) {
    let dir = TempDir::new().unwrap();
    let last = config.training.steps;
    on(config.clone(), &dir, devices).unwrap();
    let mut records = tiny::step_records(dir.path());
    for record in &mut records {
        (record.elapsed_s, record.tokens_per_s) = (0.0, 0.0);
    }
    let files = FILES.map(|file| tiny::hash(dir.path(), last, file));
    (format!("{records:?}"), files.to_vec())
}

#[apply(every_device!)]
fn devices_with_a_micro_batch_each_equal_one_that_accumulates_bit_for_bit(
    #[case] device: &Device,
    #[values(false, true)] sparse: bool,
    #[values(2, 1)] micro_batch: usize,
) {
    let config = match sparse {
        true => tiny::sparse(4, micro_batch),
        false => tiny::config(4, micro_batch),
    };
    let devices = vec![device; config.training.accumulation()];
    assert_eq!(traces(&config, &devices), traces(&config, &[device]));
}

/// Two sums of two are added, where one device adds four gradients one after the other.
#[apply(every_device!)]
fn devices_that_accumulate_equal_one_to_rounding_and_repeat_bit_for_bit(#[case] device: &Device) {
    let config = tiny::sparse(4, 1);
    let run = |devices: &[&Device]| {
        let dir = TempDir::new().unwrap();
        on(config.clone(), &dir, devices).unwrap();
        let moments = tiny::tensors(dir.path(), 4, FILES[1]);
        (tiny::step_records(dir.path()), moments)
    };
    let ((one, one_moments), (two, two_moments)) = (run(&[device]), run(&[device, device]));
    for (one, two) in one.iter().zip(&two) {
        assert!((one.loss / two.loss - 1.0).abs() < 1e-6, "{one:?} {two:?}");
        let norm = one.grad_norm / two.grad_norm - 1.0;
        assert!(norm.abs() < 1e-5, "{one:?} {two:?}");
        let dead = one.routers.iter().map(|router| router.dead);
        assert!(dead.eq(two.routers.iter().map(|router| router.dead)));
    }
    for (name, values) in &one_moments {
        let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
        let pairs = values.iter().zip(&two_moments[name]);
        let error = pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(error <= 1e-5 * largest, "{name}: {error} of {largest}");
    }
    let twice = [(); 2].map(|()| traces(&config, &[device, device]));
    assert_eq!(twice[0], twice[1]);
}

#[apply(every_device!)]
fn a_batch_that_does_not_divide_is_refused_before_anything_is_written(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let error = on(tiny::config(4, 2), &dir, &[device; 3]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, TrainError::Config(_)), "{text}");
    assert!(text.contains("devices = 3"), "{text}");
    assert!(text.contains("training.batch = 4"), "{text}");
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
}

/// The micro-batch that goes wrong is named by its place in the step, whichever device has it.
#[apply(every_device!)]
fn a_router_that_goes_wrong_on_another_device_is_told_of(#[case] device: &Device) {
    let error = |devices: &[&Device]| {
        let dir = TempDir::new().unwrap();
        let mut config = tiny::sparse(2, 2);
        config.guard.non_finite = Action::Stop;
        tiny::begin_with(&config, dir.path(), device, |model| {
            only_token_0_overflows(model, device);
        });
        let mut request = tiny::request(config, dir.path(), devices[0], true);
        request.batches = Arc::new(Token0InTheLastRow);
        request.replicas = devices[1..].iter().copied().cloned().collect();
        train(request).unwrap_err().to_string()
    };
    let (alone, shared) = (error(&[device]), error(&[device, device]));
    assert!(shared.contains("micro-batch 2: the router"), "{shared}");
    assert_eq!(shared, alone);
}

/// Token 0 alone points along the first axis, where its normed length of √16 times 10³⁸ is beyond f32.
fn only_token_0_overflows(model: &mut Decoder<FeedForwardLayer>, device: &Device) {
    let mut weight = vec![0f32; tiny::VOCAB * 16];
    for (index, value) in weight.iter_mut().enumerate() {
        let (token, axis) = (index / 16, index % 16);
        *value = match (token, axis) {
            (0, 0) => 1000.0,
            (0, _) | (_, 0) => 0.0,
            _ => ((token * axis) as f32).sin(),
        };
    }
    let weight = TensorData::new(weight, [tiny::VOCAB, 16]);
    model.embedding.weight = Param::from_tensor(Tensor::from_data(weight, device));
    let router = tiny::router(model, 0);
    let rest = router.linear.weight.val().narrow(0, 1, 15);
    let first = Tensor::full([1, 4], 1e38, device);
    router.linear.weight = Param::from_tensor(Tensor::cat(vec![first, rest], 0));
}

struct Token0InTheLastRow;

impl BatchSource for Token0InTheLastRow {
    fn batch(&self, _step: u64) -> Result<StepBatch, DataError> {
        let mut tokens: Vec<u32> = (0..4 * 9).map(|n| 1 + n % 31).collect();
        tokens[3 * 9 + 4] = 0;
        Ok(StepBatch::whole(tokens, 4))
    }
}
