//! What the norm lab measures: the theory's identities, and what training itself records.

use std::sync::Arc;

use burn::tensor::Device;
use hybridnorm_core::InitScheme;
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::lab::probe::{
    Coupling, Job, Lab, LayerCoupling, Line, Measure, SCALES, Scaled, Setting, Subject,
};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny::{self, Hashed};

fn setting(config: RunConfig) -> Setting {
    Setting {
        program: "test".to_string(),
        device: "test".to_string(),
        data: None,
        steps: config.training.steps,
        warmup_steps: 1,
        config,
    }
}

fn lab(config: &RunConfig, device: &Device) -> Lab {
    let batches = Hashed {
        batch: config.training.batch,
        seq: config.training.seq,
    };
    Lab::new(&setting(config.clone()), device, Arc::new(batches)).unwrap()
}

fn job(measure: Measure, placement: &str, depth: usize) -> Job {
    Job {
        measure,
        subject: Subject {
            placement: placement.to_string(),
            depth,
            init: InitScheme::Normal,
            seed: 0,
        },
    }
}

/// Without the ε of norms, which is what QKV-norm's identity holds up to.
fn coupling(config: fn(u64, usize) -> RunConfig, placement: &str, device: &Device) -> Coupling {
    let mut config = config(3, 2);
    config.model.norm.epsilon = 1e-30;
    let job = job(Measure::Coupling, placement, 5);
    let Line::Coupling(found) = lab(&config, device).measure(&job, None).unwrap() else {
        panic!("not a coupling");
    };
    assert_eq!(found.scales, SCALES);
    let layers: Vec<usize> = found.layers.iter().map(|found| found.layer).collect();
    assert_eq!(layers, [[0; 6], [2; 6], [4; 6]].concat());
    *found
}

fn of(coupling: &Coupling, scaled: Scaled) -> impl Iterator<Item = &LayerCoupling> {
    let layers = coupling.layers.iter();
    layers.filter(move |layer| layer.scaled == scaled)
}

/// How the gradient of W_Q follows what is scaled, in each of three layers.
fn exponents(coupling: &Coupling, scaled: Scaled) -> Vec<f64> {
    of(coupling, scaled)
        .map(|layer| LayerCoupling::exponent(&SCALES, &layer.query).unwrap())
        .collect()
}

fn near(what: &str, found: f64, expected: f64, tolerance: f64) {
    let error = (found - expected).abs();
    assert!(error <= tolerance, "{what}: {found}, not {expected}");
}

/// Scaled weights are as other numbers with the same digits only where the factor is a power of two: so are all factors, and what is left
/// are the roundings of a few sums. Their gradients go through the norms' own, whose terms cancel.
#[apply(every_device!)]
fn with_qkv_norm_the_scale_of_the_weights_is_undone(
    #[case] device: &Device,
    #[values("hybrid", "hybrid-star")] placement: &str,
    #[values(tiny::config, tiny::sparse)] config: fn(u64, usize) -> RunConfig,
) {
    let found = coupling(config, placement, device);
    for layer in of(&found, Scaled::QueryKeyValue) {
        for change in &layer.output_change {
            near("output", change.unwrap(), 0.0, 2e-6);
        }
        for (place, scale) in SCALES.into_iter().enumerate() {
            for (what, norms, power) in [
                ("W_Q", &layer.query, 1),
                ("W_K", &layer.key, 1),
                ("W_V", &layer.value, 1),
                ("W_O", &layer.output, 0),
            ] {
                let ratio = norms[place].unwrap() / norms[2].unwrap();
                near(what, ratio * scale.powi(power), 1.0, 1e-3);
            }
        }
    }
    for change in &found.model.hidden_change {
        near("hidden", change.unwrap(), 0.0, 2e-5);
    }
    for (scale, layers) in SCALES.into_iter().zip(&found.model.gradient_ratio) {
        assert_eq!(layers.len(), 5);
        for ratio in layers {
            near("gradient", ratio.unwrap() * scale, 1.0, 1e-3);
        }
    }
    // W_Q's gradient does not know how large W_K and W_V are.
    for scaled in [Scaled::Key, Scaled::Value] {
        for exponent in exponents(&found, scaled) {
            near("exponent", exponent, 0.0, 1e-3);
        }
    }
}

#[apply(every_device!)]
fn with_pre_norm_it_is_not_and_gradients_grow_with_the_other_weights(#[case] device: &Device) {
    let found = coupling(tiny::config, "pre", device);
    for layer in of(&found, Scaled::QueryKeyValue) {
        // Values alone make it c times as large.
        assert!(layer.output_change[4].unwrap() > 2.0, "{layer:?}");
    }
    assert!(found.model.hidden_change[4].unwrap() > 0.1);
    for exponent in exponents(&found, Scaled::Value) {
        near("values", exponent, 1.0, 1e-3);
    }
    // Keys as long as the softmax is far from saturated.
    for exponent in exponents(&found, Scaled::Key) {
        assert!(exponent > 0.5, "{exponent}");
    }
    // QK-norm undoes that of the keys, and leaves that of the values.
    let found = coupling(tiny::config, "pre-qk", device);
    for exponent in exponents(&found, Scaled::Key) {
        near("keys", exponent, 0.0, 1e-3);
    }
    for exponent in exponents(&found, Scaled::KeyValueOutput) {
        near("keys, values, output", exponent, 2.0, 1e-3);
    }
}

/// W_O is a factor of S and of the gradient of W_Q under every placement.
#[apply(every_device!)]
fn the_output_projection_is_a_factor(
    #[case] device: &Device,
    #[values("pre", "post", "hybrid")] placement: &str,
) {
    let found = coupling(tiny::config, placement, device);
    for exponent in exponents(&found, Scaled::Output) {
        near("exponent", exponent, 1.0, 1e-5);
    }
    for layer in of(&found, Scaled::Output) {
        for (scale, change) in SCALES.into_iter().zip(&layer.output_change) {
            near("output", change.unwrap(), (scale - 1.0).abs(), 1e-5);
        }
        let [first, last] = [0, 4].map(|place| layer.output[place].unwrap());
        near("W_O", first / last, 1.0, 1e-5);
    }
}

/// A measurement as it reads back: `serde_json` may round the last digit of a number the other way.
fn measured(lab: &Lab, job: &Job) -> Line {
    let text = serde_json::to_string(&lab.measure(job, None).unwrap()).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A short run is training: the same losses, and the layers as `--diagnostics` has them.
#[apply(every_device!)]
fn a_short_run_is_the_training_it_stands_for(
    #[case] device: &Device,
    #[values(tiny::config, tiny::sparse)] config: fn(u64, usize) -> RunConfig,
) {
    let mut config = config(4, 2);
    config.training.diagnostics_every = 4.into();
    let lab = lab(&config, device);
    let looked = job(Measure::Layers, "hybrid", 3);
    let dir = TempDir::new().unwrap();
    let trained = looked.subject.config(&config).unwrap();
    tiny::run(trained, dir.path(), device, false).unwrap();
    let records = tiny::step_records(dir.path());

    let Line::Init(trial) = measured(&lab, &job(Measure::Init, "hybrid", 3)) else {
        panic!("not a trial");
    };
    let losses: Vec<f64> = records.iter().map(|record| record.loss).collect();
    assert_eq!(trial.losses, losses);
    assert_eq!(trial.final_loss, losses.last().copied());
    assert_eq!(trial.diverged, None);

    let Line::Layers(found) = measured(&lab, &looked) else {
        panic!("not layers");
    };
    let recorded = tiny::diagnostics(dir.path());
    assert_eq!(found.looks.len(), 2);
    for (look, record) in found.looks.iter().zip(&recorded) {
        assert_eq!(look.step, record.step);
        assert_eq!(look.gradient_norm, record.gradient_norm);
        assert_eq!(look.forward, record.forward);
    }
}

/// Every seed has weights and batches of its own.
#[apply(every_device!)]
fn seeds_are_other_runs(#[case] device: &Device) {
    let config = tiny::config(2, 4);
    let lab = lab(&config, device);
    let losses = |seed: u64| {
        let mut job = job(Measure::Init, "pre", 1);
        job.subject.seed = seed;
        let Line::Init(trial) = lab.measure(&job, None).unwrap() else {
            panic!("not a trial");
        };
        trial.losses
    };
    assert_eq!(losses(1), losses(1));
    assert_ne!(losses(0), losses(1));
}

#[apply(every_device!)]
fn divergence_is_a_result(
    #[case] device: &Device,
    #[values(tiny::config, tiny::sparse)] config: fn(u64, usize) -> RunConfig,
) {
    let mut config = config(8, 4);
    config.schedule.warmup_tokens = Some(0);
    let lab = lab(&config, device);
    let trial = |lr: f64| {
        let job = job(Measure::LearningRate, "post", 2);
        let Line::LearningRate(trial) = lab.measure(&job, Some(lr)).unwrap() else {
            panic!("not a trial");
        };
        trial
    };
    let calm = trial(1e-3);
    assert_eq!((calm.diverged, calm.losses.len()), (None, 8));
    // A rate of nothing learns nothing, and that is no divergence.
    assert_eq!(trial(0.0).diverged, None);
    let broken = trial(1e30);
    let diverged = broken.diverged.unwrap();
    assert!(diverged.reason.contains("step"), "{}", diverged.reason);
    assert_eq!(broken.losses.len() as u64 + 1, diverged.step);
    assert_eq!(broken.final_loss, None);
    // Steps so long that the loss rises, and numbers that are still numbers.
    let hot = trial(3.0);
    let diverged = hot.diverged.unwrap();
    assert!(diverged.reason.contains("above"), "{}", diverged.reason);
    assert_eq!(
        (hot.losses.len() as u64, hot.final_loss),
        (diverged.step, None)
    );
    let [first, .., last] = hot.losses[..] else {
        panic!("{:?}", hot.losses);
    };
    assert!(last > 1.1 * first);
}
