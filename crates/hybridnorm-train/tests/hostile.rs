//! Files that somebody else wrote: whatever is in them costs a clear error and little memory, and never a panic. The readers of data have
//! such tests in `hybridnorm-data`.

use std::fs;
use std::path::Path;

use hybridnorm_core::DecoderConfig;
use hybridnorm_moe::ModelConfig;
use hybridnorm_testing::any_device;
use hybridnorm_train::checkpoint::{
    CheckpointStore, FORMAT, Manifest, Snapshot, TrainingState, load_model,
};
use hybridnorm_train::engine::{Inspection, stored_config};
use hybridnorm_train::guard::GuardState;
use hybridnorm_train::recipe::Moments;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tempfile::TempDir;

fn model() -> ModelConfig {
    ModelConfig {
        decoder: DecoderConfig::new(16, 8, 1, 1),
        sparse: None,
    }
}

/// A checkpoint of an untrained model.
fn checkpoint() -> (TempDir, std::path::PathBuf) {
    let dir = TempDir::new().unwrap();
    let decoder = model().init(&any_device()).unwrap();
    let snapshot = Snapshot {
        model: &decoder,
        moments: &Moments::default(),
        config: "",
    };
    let state = TrainingState {
        format: FORMAT,
        step: 1,
        tokens: 1,
        optimizer_steps: 0,
        elapsed_s: 0.0,
        config_blake3: String::new(),
        data: None,
        guard: GuardState::default(),
        program: "test".to_string(),
    };
    let store = CheckpointStore::new(dir.path().join("checkpoints"));
    let generation = store.save(&snapshot, &state).unwrap();
    (dir, generation.dir)
}

/// `bytes` with a few of them changed, moved, cut or repeated.
fn mutate(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let Some(last) = mutated.len().checked_sub(1) else {
            break;
        };
        // Headers stand at the beginning.
        let most = if random.random() { last } else { last.min(600) };
        let at = random.random_range(0..=most);
        match random.random_range(0..5) {
            0 => mutated[at] ^= 1 << random.random_range(0..8),
            1 => mutated[at] = random.random(),
            2 => mutated.truncate(at),
            3 => mutated.insert(
                at,
                *b"0123456789{}[]\",:\xff\0"
                    .get(random.random_range(0..19))
                    .unwrap_or(&0),
            ),
            _ => drop(mutated.drain(at..(at + random.random_range(1..9)).min(mutated.len()))),
        }
    }
    mutated
}

/// Puts `bytes` in the place of a checkpoint's file and describes it rightly in the manifest, so that its reader gets to see it.
fn replace(dir: &Path, file: &str, bytes: &[u8]) {
    fs::write(dir.join(file), bytes).unwrap();
    let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    for entry in manifest["files"].as_array_mut().unwrap() {
        if entry["name"] == file {
            entry["bytes"] = json!(bytes.len());
            entry["blake3"] = json!(blake3::hash(bytes).to_hex().to_string());
        }
    }
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
}

/// One line, whatever is wrong.
fn assert_clear(error: &impl core::fmt::Display) {
    let message = error.to_string();
    assert!(
        !message.is_empty() && !message.contains('\n') && message.len() < 4000,
        "{message}"
    );
}

#[test]
fn weights_that_somebody_made_up() {
    let (_dir, dir) = checkpoint();
    let device = any_device();
    let file = "model.safetensors";
    let bytes = fs::read(dir.join(file)).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut refused = 0;
    for _ in 0..600 {
        replace(&dir, file, &mutate(&bytes, &mut random));
        if let Err(error) = load_model(&dir, &model(), &device) {
            assert_clear(&error);
            refused += 1;
        }
    }
    assert!(refused > 300, "{refused}");
}

/// Headers that promise what no file holds.
#[test]
fn weights_that_promise_too_much() {
    let (_dir, dir) = checkpoint();
    let device = any_device();
    let with_header = |length: u64, header: &str| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.resize(bytes.len() + 64, 0);
        bytes
    };
    let tensor = |shape: &str, offsets: &str, dtype: &str| {
        format!(
            "{{\"final_norm.weight\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":{offsets}}}}}"
        )
    };
    for header in [
        tensor("[18446744073709551615]", "[0,64]", "F32"),
        tensor("[4611686018427387904,4]", "[0,64]", "F32"),
        tensor("[16]", "[0,18446744073709551615]", "F32"),
        tensor("[16]", "[64,0]", "F32"),
        tensor("[16]", "[-1,63]", "F32"),
        tensor("[1e3]", "[0,64]", "F32"),
        tensor("[16]", "[0,64]", "F7"),
        tensor("[32]", "[0,64]", "BF16"),
        tensor("[8]", "[0,64]", "F64"),
        "[".repeat(5000),
        "{\"a\":".repeat(5000),
        String::new(),
    ] {
        for length in [header.len() as u64, u64::MAX, 1 << 40, 0] {
            replace(&dir, "model.safetensors", &with_header(length, &header));
            assert_clear(&load_model(&dir, &model(), &device).unwrap_err());
        }
    }
}

#[test]
fn manifests_and_states_that_somebody_made_up() {
    let (root, dir) = checkpoint();
    fs::write(root.path().join("config.toml"), "[model]\n").unwrap();
    let store = CheckpointStore::new(root.path().join("checkpoints"));
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    let state = fs::read(dir.join("state.json")).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for round in 0..600 {
        match round % 2 {
            0 => fs::write(dir.join("manifest.json"), mutate(&manifest, &mut random)).unwrap(),
            _ => replace(&dir, "state.json", &mutate(&state, &mut random)),
        }
        if let Err(error) = store.newest_whole() {
            assert_clear(&error);
        }
        fs::write(dir.join("manifest.json"), &manifest).unwrap();
        fs::write(dir.join("state.json"), &state).unwrap();
    }
    for entry in ["../state.json", "/etc/passwd", "", ".", "a/b"] {
        let made_up =
            json!({"format": FORMAT, "files": [{"name": entry, "bytes": 1, "blake3": "00"}]});
        fs::write(dir.join("manifest.json"), made_up.to_string()).unwrap();
        assert_clear(&Manifest::verify(&dir).unwrap_err());
    }
    // A manifest of gigabytes is not read to its end.
    let file = fs::File::create(dir.join("manifest.json")).unwrap();
    file.set_len(8 << 30).unwrap();
    assert_clear(&Manifest::verify(&dir).unwrap_err());
}

#[test]
fn configurations_and_logs_that_somebody_made_up() {
    let dir = TempDir::new().unwrap();
    let config = "[training]\nsteps = 6\neval_every = \"5M tokens\"\n\n[guard]\nspike = \"skip\"\n\n[model]\nvocab_size = 16\n\
                  padded_vocab_size = 16\nd_model = 8\nn_layers = 1\nn_heads = 1\nn_kv_heads = 1\nd_ff = 8\nmax_seq_len = 8\ntied = true\n";
    let log =
        "{\"kind\":\"guard\",\"step\":1,\"refused\":1,\"action\":\"skip\",\"message\":\"m\"}\n"
            .repeat(5);
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..600 {
        fs::write(
            dir.path().join("config.toml"),
            mutate(config.as_bytes(), &mut random),
        )
        .unwrap();
        fs::write(
            dir.path().join("metrics.jsonl"),
            mutate(log.as_bytes(), &mut random),
        )
        .unwrap();
        if let Err(error) = stored_config(dir.path()) {
            assert_clear(&error);
        }
        if let Err(error) = Inspection::of(dir.path()) {
            assert_clear(&error);
        }
    }
    for deep in ["[", "a = [", "a = {b = "] {
        fs::write(dir.path().join("config.toml"), deep.repeat(20_000)).unwrap();
        assert_clear(&stored_config(dir.path()).unwrap_err());
    }
    fs::write(dir.path().join("config.toml"), config).unwrap();
    assert!(stored_config(dir.path()).is_ok() && Inspection::of(dir.path()).is_ok());
}
