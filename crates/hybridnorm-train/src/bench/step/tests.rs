//! The step that is timed, and what is refused.

#[cfg(feature = "flex")]
use hybridnorm_kernels::profile::Work;
use hybridnorm_testing::{apply, every_device};

use super::*;

fn tiny() -> StepBench {
    StepBench {
        model: DecoderConfig {
            d_ff: 24,
            max_seq_len: 8,
            ..DecoderConfig::new(40, 16, 2, 2)
        }
        .into(),
        seq: 8,
        batch: 2,
        micro_batch: 2,
        steps: 3,
        warmup: 1,
        ..StepBench::default()
    }
}

/// Each layer has four attention matrices, three feed-forward matrices, a norm at the feed-forward layer and three
/// in attention; the first has one before attention too; then come the last norm, the embedding and the head.
#[test]
fn the_default_is_the_shape_of_the_yardstick() {
    let bench = StepBench::default();
    bench.validate().unwrap();
    assert_eq!(bench.tokens_per_step(), 1024);
    let matrices = 4 * (4 * 256 * 256 + 3 * 256 * 1024) + 2 * 4096 * 256;
    let norms = 4 * (256 + 3 * 32) + 256 + 256;
    let all = matrices + norms;
    assert_eq!(bench.model.num_params().unwrap(), (all, all));
}

#[apply(every_device!)]
fn a_step_is_timed_and_computes_something(#[case] device: &Device) {
    let figures = tiny().run(device).unwrap();
    assert!(figures.step_ms.min > 0.0);
    // Random tokens cannot be predicted. A tied head has deviation 1/√(2.5·d) on normed vectors, so logits
    // have variance 0.4, and the mean loss of N(0, σ²) logits is ln(vocab) + σ²/2. Sixteen tokens: 3 errors.
    let expected = 40f64.ln() + 0.2;
    assert!((figures.loss - expected).abs() < 0.5, "{figures:?}");
}

#[apply(every_device!)]
fn looks_are_timed_and_change_nothing(#[case] device: &Device) {
    let plain = tiny().run(device).unwrap();
    let looked = StepBench {
        diagnostics: true,
        ..tiny()
    };
    let looked = looked.run(device).unwrap();
    assert!(looked.look_ms.unwrap() > 0.0 && plain.look_ms.is_none());
    assert_eq!(looked.loss, plain.loss);
}

#[apply(every_device!)]
fn a_step_changes_the_weights(#[case] device: &Device) {
    let bench = StepBench {
        steps: 2,
        warmup: 0,
        ..tiny()
    };
    let device = device.clone().autodiff();
    let untrained = LanguageModel::new(&bench.model, &device).unwrap();
    let batch = bench.tokens(2, &device);
    let untrained = StepGradients::of(
        &untrained,
        std::iter::once(Ok(batch)),
        &Replicas::default(),
        2,
    )
    .unwrap();
    let trained = bench.run(&device).unwrap();
    assert!(
        (trained.loss - untrained.figures.loss).abs() > 1e-5,
        "{trained:?}"
    );
}

/// Without gradients, of the same batch, the same loss.
#[apply(every_device!)]
fn a_forward_pass_computes_the_loss_of_the_step(#[case] device: &Device) {
    let step = StepBench {
        steps: 1,
        warmup: 0,
        ..tiny()
    };
    let forward = StepBench {
        forward_only: true,
        ..step.clone()
    };
    let (step, forward) = (step.run(device).unwrap(), forward.run(device).unwrap());
    assert!(
        (step.loss - forward.loss).abs() < 1e-5,
        "{step:?} {forward:?}"
    );
}

/// The gradients of a layer's operations are counted with the layer, wherever they are computed.
#[cfg(feature = "flex")]
#[test]
fn time_is_counted_where_it_is_spent() {
    let device = hybridnorm_testing::open("flex");
    let spent = |forward_only: bool| {
        let bench = StepBench {
            forward_only,
            steps: 40,
            ..tiny()
        };
        bench.run(device).unwrap().operations
    };
    let (step, forward) = (spent(false), spent(true));
    assert_eq!(step.len(), 3);
    let of = |places: &[Vec<f64>], at: usize, work: Work| places[at][work as usize];
    for work in [Work::Attention, Work::QkvNormRope, Work::Gates] {
        assert_eq!(of(&step, 0, work), 0.0, "{work:?}");
        assert!((1..3).all(|at| of(&step, at, work) > 0.0), "{work:?}");
    }
    for work in [Work::CrossEntropy, Work::Optimizer] {
        assert!(of(&step, 0, work) > 0.0, "{work:?}");
        assert!((1..3).all(|at| of(&step, at, work) == 0.0), "{work:?}");
    }
    assert_eq!(of(&forward, 0, Work::Optimizer), 0.0);
    assert!(of(&forward, 1, Work::Products) > 0.0);
}

#[apply(every_device!)]
fn the_warm_up_takes_steps_of_its_own(#[case] device: &Device) {
    let short = StepBench {
        steps: 1,
        warmup: 3,
        ..tiny()
    };
    assert_eq!(
        short.run(device).unwrap().loss,
        tiny().run(device).unwrap().loss
    );
}

#[apply(every_device!)]
fn tokens_depend_on_the_step_alone_and_stay_in_the_embedding(#[case] device: &Device) {
    let read = |step| -> Vec<i32> {
        let tokens = tiny().tokens(step, device).tokens;
        tokens.flatten::<1>(0, 1).try_into_vec_as().unwrap()
    };
    assert_eq!(read(1), read(1));
    assert_ne!(read(1), read(2));
    assert_eq!(read(1).len(), 2 * 9);
    assert!((1..200).flat_map(read).all(|id| (0..40).contains(&id)));
}

#[test]
fn what_cannot_be_counted_is_refused() {
    let refused = |change: fn(&mut StepBench)| {
        let mut bench = tiny();
        change(&mut bench);
        bench.validate().unwrap_err().field
    };
    assert_eq!(refused(|bench| bench.steps = 0), "steps");
    assert_eq!(refused(|bench| bench.seq = 0), "seq");
    assert_eq!(refused(|bench| bench.batch = 0), "batch");
    assert_eq!(refused(|bench| bench.batch = usize::MAX - 1), "batch");
    assert_eq!(refused(|bench| bench.micro_batch = 0), "micro_batch");
    assert_eq!(refused(|bench| bench.batch = 3), "micro_batch");
    assert_eq!(refused(|b| b.stages.logit_rows = Some(0)), "logit_rows");
    assert_eq!(refused(|bench| bench.seq = 9), "seq");
    let endless = |bench: &mut StepBench| {
        bench.seq = usize::MAX;
        bench.model.decoder.max_seq_len = usize::MAX;
    };
    assert_eq!(refused(endless), "batch");
    assert_eq!(refused(|bench| bench.model.decoder.d_ff = 0), "d_ff");
}
