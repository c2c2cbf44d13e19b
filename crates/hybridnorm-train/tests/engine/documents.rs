//! Documents that are kept apart, and labels that count for nothing.

use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::tensor::Device;
use hybridnorm_core::Pass;
use hybridnorm_testing::{any_device, apply, every_device};
use hybridnorm_train::data::{DataError, StepBatch};
use hybridnorm_train::engine::{
    BatchSource, LanguageModel, LoaderShape, Recompute, TokenBatch, TokenLoader, TrainError, train,
};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

const END: u32 = 29;
const SEQ: usize = 16;

/// The same batch in every step.
struct Fixed(StepBatch);

impl BatchSource for Fixed {
    fn batch(&self, _step: u64) -> Result<StepBatch, DataError> {
        Ok(self.0.clone())
    }
}

/// The same, and known to end its documents with [`END`].
struct Ending(Fixed);

impl BatchSource for Ending {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        self.0.batch(step)
    }

    fn end_of_document(&self) -> Option<u32> {
        Some(END)
    }
}

/// One sequence of two documents, the first of `first` tokens and its end. `edit` decides the tokens of the first only.
fn two_documents(first: usize, edit: u32) -> Vec<u32> {
    let token = |place: u32, salt: u32| (place * 7 + place * place * salt + salt) % END;
    let mut ids: Vec<u32> = (0..=SEQ as u32).map(|place| token(place, 3)).collect();
    for (place, id) in ids[..first].iter_mut().enumerate() {
        *id = token(place as u32, edit);
    }
    ids[first] = END;
    ids
}

/// What the loader makes of a batch.
fn load(batch: StepBatch, mask: Option<u32>, device: &Device) -> TokenBatch {
    let shape = LoaderShape {
        batch: batch.masked.len(),
        micro_batch: batch.masked.len(),
        seq: batch.tokens.len() / batch.masked.len() - 1,
        vocab: 32,
        noise_seed: 0,
        document_mask: mask,
    };
    let loader = TokenLoader::new(Arc::new(Fixed(batch)), shape, 0..1, device.clone());
    let loaded = loader.iter().next();
    loaded.unwrap().unwrap()
}

/// The logits of one sequence, `[seq, vocab]`.
fn logits(model: &LanguageModel, ids: &[u32], mask: Option<u32>, device: &Device) -> Vec<Vec<f32>> {
    let batch = load(StepBatch::whole(ids.to_vec(), 1), mask, device);
    let mut pass = match batch.documents {
        Some(documents) => Pass::documents(documents),
        None => Pass::causal(),
    };
    let logits = model
        .decoder
        .forward_in(batch.tokens.narrow(1, 0, SEQ), &mut pass);
    let [_, seq, vocab] = logits.dims();
    let logits: Vec<f32> = logits.try_into_vec_as().unwrap();
    assert_eq!(seq, SEQ);
    logits.chunks(vocab).map(<[f32]>::to_vec).collect()
}

fn largest_change(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}

/// Whatever stands in the first document, the second one's logits stay as they are; without the mask they move.
fn editing_one_document(config: RunConfig, allowed: f32, device: &Device) {
    let model = LanguageModel::new(&config.model_config(), device).unwrap();
    for first in [0, 1, 5, 9, SEQ - 2] {
        let of = |edit, mask| {
            let logits = logits(&model, &two_documents(first, edit), mask, device);
            // The end belongs to the first document; the second begins after it.
            logits[first + 1..].to_vec()
        };
        let [masked, open] = [Some(END), None].map(|mask| of(3, mask));
        for edit in [1, 4, 8, 11, 25] {
            let moved = largest_change(&masked, &of(edit, Some(END)));
            assert!(
                moved <= allowed,
                "{moved} after {first} tokens, edit {edit}"
            );
            if first > 0 {
                assert!(largest_change(&open, &of(edit, None)) > 1e-4);
            }
        }
    }
}

#[apply(every_device!)]
fn editing_document_1_never_moves_document_2s_logits(#[case] device: &Device) {
    editing_one_document(tiny::config(1, 4), 0.0, device);
    // Which rows an expert's product is taken over depends on all tokens, and so does its rounding.
    editing_one_document(tiny::sparse(1, 4), 1e-5, device);
}

/// A masked sequence adds nothing, and stays in the divisor: half of two sequences' loss is the other's.
#[apply(every_device!)]
fn a_masked_sequence_costs_nothing_and_counts_in_the_divisor(#[case] device: &Device) {
    let model = LanguageModel::new(&tiny::config(1, 4).model_config(), device).unwrap();
    let (one, other) = (two_documents(4, 5), two_documents(9, 7));
    let loss = |tokens: Vec<u32>, masked: Vec<bool>| {
        let batch = load(StepBatch { tokens, masked }, None, device);
        let loss: f64 = model.loss(batch).into_scalar();
        loss
    };
    let alone = loss(one.clone(), vec![false]);
    let both = [one, other].concat();
    let halved = loss(both.clone(), vec![false, true]);
    assert!((halved - alone / 2.0).abs() < 1e-6, "{halved} of {alone}");
    assert_eq!(loss(both.clone(), vec![true, true]), 0.0);
    assert!(loss(both, vec![false, false]) > halved);
}

/// Masks act alike wherever a sequence falls among the micro-batches, and in passes that are divided to save memory.
#[apply(every_device!)]
fn masks_do_not_depend_on_how_a_step_is_divided(#[case] device: &Device) {
    let tokens = [4, 9, 2, 7].map(|first| two_documents(first, 5)).concat();
    let batch = Fixed(StepBatch {
        tokens,
        masked: vec![false, true, true, false],
    });
    let batch = Arc::new(Ending(batch));
    let losses = [
        (1, Recompute::None, None),
        (2, Recompute::None, None),
        (4, Recompute::None, None),
        (4, Recompute::None, Some(7)),
        (2, Recompute::Block, Some(7)),
    ]
    .map(|(micro_batch, recompute, rows)| {
        let dir = TempDir::new().unwrap();
        let mut config = tiny::config(3, micro_batch);
        config.training.seq = SEQ;
        config.training.recompute = recompute;
        config.training.logit_rows = rows;
        config.data.document_mask = true;
        let mut request = tiny::request(config, dir.path(), device, false);
        request.batches = batch.clone();
        train(request).unwrap();
        let records = tiny::step_records(dir.path());
        records.iter().map(|record| record.loss).collect::<Vec<_>>()
    });
    for other in &losses[1..] {
        for (a, b) in losses[0].iter().zip(other) {
            assert!((a - b).abs() < 1e-5, "{losses:?}");
        }
    }
}

/// Masks go where their sequences go: a copy of the model on another device computes with them too.
#[apply(every_device!)]
fn masks_follow_their_sequences_to_other_devices(#[case] device: &Device) {
    let batch = Arc::new(Ending(Fixed(StepBatch {
        tokens: [4, 9, 2, 7].map(|first| two_documents(first, 5)).concat(),
        masked: vec![false, true, true, false],
    })));
    let losses = [Vec::new(), vec![Device::flex()]].map(|replicas| {
        let dir = TempDir::new().unwrap();
        let mut config = tiny::config(3, 2);
        config.training.seq = SEQ;
        config.data.document_mask = true;
        let mut request = tiny::request(config, dir.path(), device, false);
        request.batches = batch.clone();
        request.replicas = replicas;
        train(request).unwrap();
        let records = tiny::step_records(dir.path());
        records.iter().map(|record| record.loss).collect::<Vec<_>>()
    });
    for (alone, together) in losses[0].iter().zip(&losses[1]) {
        assert!((alone - together).abs() < 1e-5, "{losses:?}");
    }
}

#[test]
fn a_mask_needs_to_know_the_end_of_a_document() {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::config(1, 4);
    config.data.document_mask = true;
    let error = tiny::run(config, dir.path(), &any_device(), false).unwrap_err();
    assert!(matches!(error, TrainError::Config(_)), "{error}");
    assert!(error.to_string().contains("data.document_mask"), "{error}");
}

/// Data that goes away in the second step.
struct Vanishing;

impl BatchSource for Vanishing {
    fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        match step {
            0 => Ok(StepBatch::whole(vec![1; 36], 4)),
            _ => Err(DataError::BadShard {
                path: "train-00000.tokens".into(),
                message: "it was cut short".to_string(),
            }),
        }
    }
}

#[test]
fn data_that_cannot_be_read_ends_the_run_and_is_named() {
    let dir = TempDir::new().unwrap();
    let mut request = tiny::request(tiny::config(4, 4), dir.path(), &any_device(), false);
    request.batches = Arc::new(Vanishing);
    let error = train(request).unwrap_err();
    assert!(matches!(error, TrainError::Data { step: 2, .. }), "{error}");
    assert!(error.to_string().contains("train-00000.tokens"), "{error}");
}
