//! Bit-identical resume, accumulation, retention, the log.

use burn::tensor::Device;
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::run::RunConfig;
use tempfile::TempDir;

use crate::tiny;

const FILES: [&str; 2] = ["model.safetensors", "optimizer.safetensors"];

#[apply(every_device!)]
fn a_resumed_run_equals_a_straight_one_bit_for_bit(
    #[case] device: &Device,
    #[values(4, 2)] micro_batch: usize,
    #[values(3, 4)] stop: u64,
    #[values(tiny::config, tiny::muon)] config: fn(u64, usize) -> RunConfig,
) {
    let (straight, broken) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let config = config(8, micro_batch);
    tiny::run(config.clone(), straight.path(), device, false).unwrap();
    let first = tiny::run_until(config.clone(), broken.path(), device, stop).unwrap();
    assert!(first.interrupted);
    assert_eq!(first.steps, stop);
    let second = tiny::run(config, broken.path(), device, true).unwrap();
    assert_eq!(second.resumed_from, Some(stop));
    assert_eq!(second.steps, 8);
    for file in FILES {
        let hashes = [straight.path(), broken.path()].map(|run| tiny::hash(run, 8, file));
        assert_eq!(hashes[0], hashes[1], "{file} on {device:?}");
    }
    let steps = tiny::steps(broken.path());
    assert_eq!(steps, tiny::steps(straight.path()));
    let numbers: Vec<u64> = steps.iter().map(|step| step.0).collect();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    // An evaluation that was due where the run was stopped is made up for.
    assert_eq!(tiny::outline(broken.path()), tiny::outline(straight.path()));
}

#[apply(every_device!)]
fn muon_keeps_a_momentum_for_matrices_and_no_more(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    tiny::run(tiny::muon(2, 4), dir.path(), device, false).unwrap();
    let tensors = tiny::tensors(dir.path(), 2, FILES[1]);
    let of = |what: &str| {
        let names = tensors.keys().filter_map(|name| {
            let path = name.strip_prefix(what)?;
            Some(path.to_string())
        });
        names.collect::<Vec<_>>()
    };
    let momenta = of("momentum.");
    assert!(momenta.contains(&"blocks.1.feed_forward.experts.up".to_string()));
    assert!(momenta.contains(&"blocks.0.attention.qkv.weight".to_string()));
    assert_eq!(of("first."), of("second."));
    assert!(of("first.").contains(&"embedding.weight".to_string()));
    assert!(of("first.").iter().all(|path| !momenta.contains(path)));
    let parameters = tiny::tensors(dir.path(), 2, FILES[0]).len();
    assert_eq!(momenta.len() + of("first.").len(), parameters);
}

#[apply(every_device!)]
fn accumulated_micro_batches_equal_one_batch_to_rounding(#[case] device: &Device) {
    let run = |micro_batch| {
        let dir = TempDir::new().unwrap();
        tiny::run(tiny::config(4, micro_batch), dir.path(), device, false).unwrap();
        // Adam's step hardly depends on the gradient's scale; its moments do.
        let moments = tiny::tensors(dir.path(), 2, FILES[1]);
        (tiny::steps(dir.path()), moments)
    };
    let (whole, moments) = run(4);
    for micro_batch in [2, 1] {
        let (parts, accumulated) = run(micro_batch);
        for (a, b) in whole.iter().zip(parts) {
            let near = |a: u64, b: u64| (f64::from_bits(a) / f64::from_bits(b) - 1.0).abs();
            assert!(near(a.1, b.1) < 1e-5, "loss of step {}", a.0);
            assert!(near(a.2, b.2) < 1e-4, "gradient norm of step {}", a.0);
        }
        for (name, values) in &moments {
            let largest = values.iter().fold(0f32, |most, v| most.max(v.abs()));
            let pairs = values.iter().zip(&accumulated[name]);
            let error = pairs.fold(0f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(error < 1e-3 * largest, "{name}: {error} of {largest}");
        }
    }
}

#[apply(every_device!)]
fn the_newest_checkpoints_are_kept(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::config(8, 4);
    config.training.keep_checkpoints = 2;
    tiny::run(config, dir.path(), device, false).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(dir.path().join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["step-6", "step-8"]);
}

#[apply(every_device!)]
fn the_run_directory_holds_what_is_documented_and_nothing_else(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    tiny::run(tiny::config(2, 4), dir.path(), device, false).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [".lock", "checkpoints", "config.toml", "metrics.jsonl"]
    );
}

#[apply(every_device!)]
fn resuming_a_finished_run_changes_nothing(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(4, 4);
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    let before = (
        tiny::records(dir.path()),
        tiny::hash(dir.path(), 4, FILES[0]),
    );
    let again = tiny::run(config, dir.path(), device, true).unwrap();
    let last = tiny::step_records(dir.path()).pop().unwrap();
    assert_eq!((again.steps, again.loss), (4, Some(last.loss)));
    assert!(again.evaluation.is_some() && !again.interrupted);
    let after = (
        tiny::records(dir.path()),
        tiny::hash(dir.path(), 4, FILES[0]),
    );
    assert_eq!(before, after);
}

/// A run that was killed between its last checkpoint and its last evaluation.
#[apply(every_device!)]
fn the_last_evaluation_is_made_up_for(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(6, 4);
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    let (log, whole) = (dir.path().join("metrics.jsonl"), tiny::outline(dir.path()));
    let text = std::fs::read_to_string(&log).unwrap();
    let last = text.trim_end().rfind('\n').unwrap() + 1;
    assert!(text[last..].contains("evaluation"), "{text}");
    std::fs::write(&log, &text[..last]).unwrap();
    tiny::run(config, dir.path(), device, true).unwrap();
    assert_eq!(tiny::outline(dir.path()), whole);
}

#[apply(every_device!)]
fn a_saved_model_predicts_what_the_trained_one_does(#[case] device: &Device) {
    use burn::tensor::{Int, Tensor};
    use hybridnorm_train::checkpoint::load_model;
    let dir = TempDir::new().unwrap();
    let config = tiny::config(2, 4);
    let trained = tiny::run(config.clone(), dir.path(), device, false).unwrap();
    let loaded = load_model(&trained.checkpoint.unwrap(), &config.model_config(), device).unwrap();
    let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], device);
    let logits = |logits: Tensor<3>| logits.try_into_vec_as::<f32>().unwrap();
    assert_eq!(
        logits(trained.model.decoder.forward(tokens.clone())),
        logits(loaded.forward(tokens)),
    );
}
