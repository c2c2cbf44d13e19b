//! What fits and what does not.

use hybridnorm_core::DecoderConfig;

use super::*;

/// 4 layers of width 256: 8 sequences in a micro-batch, one of which makes a step.
fn workload() -> Workload {
    let decoder = DecoderConfig {
        d_ff: 1024,
        tied: false,
        ..DecoderConfig::new(4096, 256, 8, 4)
    };
    Workload {
        model: decoder.into(),
        optimizer: OptimizerName::AdamW,
        seq: 256,
        micro_batch: 8,
        accumulation: 1,
        stages: Stages::default(),
        devices: 1,
        host: Some(0),
    }
}

fn total(workload: &Workload) -> u64 {
    workload.memory().unwrap().total()
}

/// The error of a machine that has `share` of what the workload needs.
fn refusal(workload: &Workload, share: f64) -> TooLarge {
    let available = (total(workload) as f64 * share) as u64;
    workload.too_large(available, "flex").unwrap().unwrap()
}

/// What the workload needs with blocks computed twice and one row of logits at once, in micro-batches of `micro_batch`.
fn smallest(workload: &Workload, micro_batch: usize) -> u64 {
    let mut smallest = workload.clone();
    let sequences = workload.micro_batch * workload.accumulation;
    (smallest.micro_batch, smallest.accumulation) = (micro_batch, sequences / micro_batch);
    smallest.stages.recompute = Recompute::Block;
    smallest.stages.logit_rows = Some(1);
    total(&smallest)
}

#[test]
fn weights_gradients_and_moments_follow_the_parameters() {
    let mut workload = workload();
    let parameters = workload.model.num_params().unwrap().0 as u64;
    let memory = workload.memory().unwrap();
    assert_eq!(memory.weights, 4 * parameters);
    assert_eq!(memory.gradients, 4 * parameters);
    assert_eq!(memory.optimizer, 8 * parameters);
    workload.accumulation = 2;
    assert_eq!(workload.memory().unwrap().gradients, 8 * parameters);
    // Embedding and head are AdamW's, the matrices of the blocks Muon's.
    workload.optimizer = OptimizerName::Muon;
    let outside = 2 * 4096 * 256;
    let moments = workload.memory().unwrap().optimizer;
    assert_eq!(moments, 4 * (parameters + outside));
}

/// HybridNorm by hand: attention keeps its input, the projections, what the norms and the rotation made of them, the largest score and its share for each
/// head and the context; the feed-forward layer the input of its norm and that norm, and three times its width.
#[test]
fn a_block_keeps_what_its_operations_say() {
    let mut decoder = workload().model.decoder;
    decoder.placement = "hybrid".parse().unwrap();
    let table = Table {
        decoder: &decoder,
        product: 1.0,
    };
    let norms = decoder.placement.layer(1, 4).unwrap();
    let (d, f, heads) = (256.0, 1024.0, 8.0);
    let attention = (1.0 + 3.0 + 3.0 + 1.0) * d + 2.0 * heads;
    let feed_forward = 2.0 * d + 3.0 * f;
    assert_eq!(kept(&table.block(&norms, None)), attention + feed_forward);
}

#[test]
fn a_run_that_fits_is_not_refused() {
    let workload = workload();
    assert_eq!(workload.too_large(total(&workload), "flex").unwrap(), None);
}

#[test]
fn a_run_that_does_not_fit_is_told_what_would() {
    let workload = workload();
    let error = refusal(&workload, 0.8);
    assert_eq!(error.needed, total(&workload));
    let text = error.to_string();
    for words in [
        "flex has",
        "`--recompute block` would fit",
        "`--micro-batch 4`",
        "--ignore-memory",
    ] {
        assert!(text.contains(words), "no {words:?} in: {text}");
    }
    let mut changed = workload.clone();
    (changed.micro_batch, changed.accumulation) = (4, 2);
    let figure = format!(
        "`--micro-batch 4` would fit ({})",
        in_words(total(&changed))
    );
    assert!(text.contains(&figure), "no {figure:?} in: {text}");
}

#[test]
fn settings_are_named_together_where_one_is_not_enough() {
    let workload = workload();
    let mut least = workload.clone();
    (least.micro_batch, least.accumulation) = (1, 8);
    let mut recomputed = least.clone();
    recomputed.stages.recompute = Recompute::Block;
    let between = (total(&least).min(total(&workload)) + total(&recomputed)) / 2;
    let text = workload.too_large(between, "flex").unwrap().unwrap();
    assert!(text.advice.contains("--recompute block"), "{text}");
    assert!(!text.advice.contains("would still need"), "{text}");
}

#[test]
fn slices_of_logits_help_where_the_vocabulary_is_large() {
    let mut workload = workload();
    workload.model.decoder.padded_vocab_size = 65_536;
    let text = refusal(&workload, 0.95).to_string();
    assert!(text.contains("--logit-rows"), "{text}");
}

#[test]
fn where_nothing_helps_the_largest_part_is_named() {
    let text = refusal(&workload(), 0.05).to_string();
    assert!(text.contains("a smaller model or a device"), "{text}");
    assert!(!text.contains("--recompute"), "{text}");
    // A little less than what the settings that need least leave, and more than the model itself.
    let workload = workload();
    let least = smallest(&workload, 8).min(smallest(&workload, 1));
    let text = workload.too_large(least - 1, "flex").unwrap().unwrap();
    assert!(text.advice.contains("would still need"), "{text}");
    assert!(text.advice.contains("for optimiser state"), "{text}");
}

/// With few tokens the gradients that are summed up cost more than smaller micro-batches spare.
#[test]
fn what_would_need_more_is_not_advised() {
    let workload = Workload {
        seq: 8,
        micro_batch: 2,
        ..workload()
    };
    let whole = smallest(&workload, 2);
    assert!(whole < smallest(&workload, 1));
    let text = workload.too_large(whole - 1, "flex").unwrap().unwrap();
    assert!(text.advice.contains("--recompute block"), "{text}");
    assert!(!text.advice.contains("--micro-batch"), "{text}");
}

#[test]
fn devices_that_share_a_memory_add_up() {
    let one = workload().memory().unwrap();
    let two = Workload {
        devices: 2,
        ..workload()
    };
    let two = two.memory().unwrap();
    assert_eq!(two.activations, 2 * one.activations);
    assert_eq!((two.weights, two.process), (one.weights, one.process));
    // On a GPU, what the process takes is elsewhere.
    let card = Workload {
        host: None,
        ..workload()
    };
    assert_eq!(total(&card), one.total() - one.process);
}
