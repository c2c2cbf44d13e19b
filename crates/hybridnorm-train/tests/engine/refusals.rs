//! Runs that must not start: each refusal is one line, and nothing is half-written.

use std::fs;

use burn::tensor::Device;
use hybridnorm_moe::{SparseConfig, SparseLayers};
use hybridnorm_testing::any_device;
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::checkpoint::load_model;
use hybridnorm_train::engine::{RunDir, TrainError, differing_fields, stored_config, train};
use hybridnorm_train::run::RunConfig;
use rstest::rstest;
use tempfile::TempDir;

use crate::tiny;

#[apply(every_device!)]
fn an_existing_run_is_refused_without_resume(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(2, 4);
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    let error = tiny::run(config, dir.path(), device, false).unwrap_err();
    assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
}

#[apply(every_device!)]
fn nothing_to_resume_is_refused(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let error = tiny::run(tiny::config(2, 4), dir.path(), device, true).unwrap_err();
    assert!(matches!(error, TrainError::NoRun { .. }), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[rstest]
#[case("training.seq", |c: &mut RunConfig| c.training.seq = 9)]
#[case("training.steps", |c: &mut RunConfig| c.training.steps = 9)]
#[case("model.d_ff", |c: &mut RunConfig| c.model.d_ff = 64)]
#[case("schedule.lr", |c: &mut RunConfig| c.schedule.lr = 0.5)]
#[case("sparse", |c: &mut RunConfig| c.sparse = Some(SparseConfig::new(4, 2, 8)))]
#[case("model.clip_qkv", |c: &mut RunConfig| c.model.clip_qkv = Some(8.0))]
fn a_changed_field_is_named(#[case] field: &str, #[case] change: fn(&mut RunConfig)) {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let mut config = tiny::config(2, 4);
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    assert_eq!(stored_config(dir.path()).unwrap(), config);
    change(&mut config);
    match tiny::run(config, dir.path(), device, true).unwrap_err() {
        TrainError::ConfigChanged { field: found, .. } => assert_eq!(found, field),
        other => panic!("{other}"),
    }
}

#[test]
fn a_changed_field_of_the_sparse_layers_is_named() {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let mut config = tiny::sparse(2, 4);
    tiny::run(config.clone(), dir.path(), device, false).unwrap();
    assert_eq!(stored_config(dir.path()).unwrap(), config);
    config.sparse.as_mut().unwrap().router.top_k = 1;
    match tiny::run(config, dir.path(), device, true).unwrap_err() {
        TrainError::ConfigChanged { field, .. } => assert_eq!(field, "sparse.router.top_k"),
        other => panic!("{other}"),
    }
}

#[apply(every_device!)]
fn what_does_not_change_the_mathematics_may_change(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let mut config = tiny::config(4, 4);
    tiny::run_until(config.clone(), dir.path(), device, 2).unwrap();
    config.training.checkpoint_every = 1.into();
    config.training.keep_checkpoints = 2;
    tiny::run(config.clone(), dir.path(), device, true).unwrap();
    assert_eq!(stored_config(dir.path()).unwrap(), config);
    assert!(dir.path().join("checkpoints/step-3").is_dir());
}

#[apply(every_device!)]
fn other_data_is_refused(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(4, 4);
    tiny::run_until(config.clone(), dir.path(), device, 2).unwrap();
    let mut moved = config.clone();
    moved.data.path = Some("elsewhere".into());
    let mut request = tiny::request(moved, dir.path(), device, true);
    request.batches = std::sync::Arc::new(tiny::Hashed { batch: 4, seq: 9 });
    let error = train(request).unwrap_err();
    assert!(matches!(error, TrainError::DataChanged { .. }), "{error}");
    // Who was refused has changed nothing.
    assert_eq!(stored_config(dir.path()).unwrap(), config);
}

#[rstest]
#[case::micro_batch("training.micro_batch", |c: &mut RunConfig| c.training.micro_batch = 3)]
#[case::no_steps("training.steps", |c: &mut RunConfig| c.training.steps = 0)]
#[case::long("training.seq", |c: &mut RunConfig| c.training.seq = 17)]
#[case::heads("n_heads", |c: &mut RunConfig| c.model.n_heads = 3)]
#[case::tokens("training.steps", |c: &mut RunConfig| c.training.steps = u64::MAX)]
#[case::warmup("schedule.warmup_from", |c: &mut RunConfig| c.schedule.warmup_from = f64::INFINITY)]
#[case::lr("schedule.lr", |c: &mut RunConfig| c.schedule.lr = f64::NAN)]
#[case::top_k("sparse.router.top_k", |c: &mut RunConfig| c.sparse = Some(SparseConfig::new(2, 3, 8)))]
#[case::layers("sparse.layers", |c: &mut RunConfig| c.sparse = Some(SparseConfig {
    layers: SparseLayers::Only(vec![2]),
    ..SparseConfig::new(2, 1, 8)
}))]
fn an_impossible_configuration_leaves_no_directory(
    #[case] field: &str,
    #[case] change: fn(&mut RunConfig),
) {
    let device = &any_device();
    let dir = TempDir::new().unwrap();
    let run = dir.path().join("deep/run");
    let mut config = tiny::config(2, 4);
    change(&mut config);
    match tiny::run(config, &run, device, false).unwrap_err() {
        TrainError::Config(error) => assert_eq!(error.field, field),
        other => panic!("{other}"),
    }
    assert!(!dir.path().join("deep").exists());
}

#[apply(every_device!)]
fn a_directory_below_a_file_is_refused(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = tiny::run(tiny::config(2, 4), &file.join("run"), device, false).unwrap_err();
    let text = error.to_string();
    assert!(
        matches!(error, TrainError::Io { .. }) && text.contains("file/run"),
        "{text}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_run_in_use_is_refused() {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(2, 4);
    let open = RunDir::create(dir.path(), &config).unwrap();
    let error = RunDir::resume(dir.path(), &config, &[]).unwrap_err();
    assert!(matches!(error, TrainError::Locked { .. }), "{error}");
    drop(open);
    RunDir::resume(dir.path(), &config, &[]).unwrap();
}

#[test]
fn what_a_killed_start_left_behind_is_no_run() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(".lock"), "").unwrap();
    fs::write(dir.path().join(".config.toml.tmp"), "half").unwrap();
    RunDir::probe(dir.path()).unwrap();
    RunDir::create(dir.path(), &tiny::config(2, 4)).unwrap();
    let names = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 2, "config.toml and .lock");
    let error = RunDir::probe(dir.path()).unwrap_err();
    assert!(matches!(error, TrainError::RunExists { .. }), "{error}");
}

#[test]
fn an_unknown_field_in_a_stored_configuration_is_one_line() {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(2, 4);
    drop(RunDir::create(dir.path(), &config).unwrap());
    let file = dir.path().join("config.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("d_ff", "d_fff")).unwrap();
    let error = stored_config(dir.path()).unwrap_err().to_string();
    assert!(error.contains("d_fff") && !error.contains('\n'), "{error}");
}

#[apply(every_device!)]
fn a_checkpoint_of_another_shape_is_refused(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    let config = tiny::config(2, 4);
    let run = tiny::run(config.clone(), dir.path(), device, false).unwrap();
    let checkpoint = run.checkpoint.unwrap();
    let refused = |change: fn(&mut RunConfig), device: &Device| {
        let mut other = config.clone();
        change(&mut other);
        load_model(&checkpoint, &other.model_config(), device)
            .unwrap_err()
            .to_string()
    };
    let wide = refused(|c| c.model.padded_vocab_size = 40, device);
    assert!(wide.contains("embedding.weight"), "{wide}");
    assert!(
        wide.contains("[32, 16]") && wide.contains("[40, 16]"),
        "{wide}"
    );
    let deep = refused(|c| c.model.n_layers = 3, device);
    assert!(
        deep.contains("blocks.2") && deep.contains("missing"),
        "{deep}"
    );
    let shallow = refused(|c| c.model.n_layers = 1, device);
    assert!(
        shallow.contains("blocks.1") && shallow.contains("not in the model"),
        "{shallow}"
    );
}

#[test]
fn differences_are_listed_by_path() {
    let (a, mut b) = (tiny::config(2, 4), tiny::config(2, 4));
    assert_eq!(differing_fields(&a, &b).unwrap(), []);
    b.model.rope.theta = 1.0;
    b.training.seed = 1;
    let found = differing_fields(&a, &b).unwrap();
    let fields: Vec<&str> = found.iter().map(|d| d.field.as_str()).collect();
    assert_eq!(fields, ["model.rope.theta", "training.seed"]);
}
