//! What reads a file that somebody else wrote, given its bytes: for the tests beside this file, and for `cargo fuzz` (`../../fuzz`). Each
//! panics where the reader does, or where its error is not one clear line.

use std::fs;
use std::path::{Path, PathBuf};

use hybridnorm_core::DecoderConfig;
use hybridnorm_moe::ModelConfig;
use hybridnorm_testing::any_device;
use hybridnorm_train::checkpoint::{CheckpointStore, FORMAT, Snapshot, TrainingState, load_model};
use hybridnorm_train::engine::{Inspection, stored_config};
use hybridnorm_train::guard::GuardState;
use hybridnorm_train::recipe::Moments;
use serde_json::json;
use tempfile::TempDir;

/// One line, whatever is wrong.
pub fn assert_clear(error: &impl core::fmt::Display) {
    let message = error.to_string();
    assert!(
        !message.is_empty() && !message.contains('\n') && message.len() < 4000,
        "{message}"
    );
}

fn clear<T, E: core::fmt::Display>(read: Result<T, E>) -> bool {
    read.inspect_err(assert_clear).is_ok()
}

fn model() -> ModelConfig {
    ModelConfig {
        decoder: DecoderConfig::new(16, 8, 1, 1),
        sparse: None,
    }
}

/// A checkpoint of an untrained model, whose files can be replaced.
pub struct Checkpoint {
    root: TempDir,
    dir: PathBuf,
}

impl Checkpoint {
    pub fn new() -> Self {
        let root = TempDir::new().unwrap();
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
        let store = CheckpointStore::new(root.path().join("checkpoints"));
        let dir = store.save(&snapshot, &state).unwrap().dir;
        Self { root, dir }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.dir.join(file)).unwrap()
    }

    /// Whether `bytes` are read as the model's weights.
    pub fn weights(&self, bytes: &[u8]) -> bool {
        self.replaced("model.safetensors", bytes, || {
            clear(load_model(&self.dir, &model(), &any_device()))
        })
    }

    /// Whether a checkpoint with this state is a whole one.
    pub fn state(&self, bytes: &[u8]) -> bool {
        self.replaced("state.json", bytes, || self.newest())
    }

    /// Whether a checkpoint with this manifest is a whole one.
    pub fn manifest(&self, bytes: &[u8]) -> bool {
        let known = self.read("manifest.json");
        fs::write(self.dir.join("manifest.json"), bytes).unwrap();
        let found = self.newest();
        fs::write(self.dir.join("manifest.json"), known).unwrap();
        found
    }

    fn newest(&self) -> bool {
        let store = CheckpointStore::new(self.root.path().join("checkpoints"));
        clear(store.newest_whole())
    }

    /// Runs `read` while `bytes` stand in the place of a file, rightly described in the manifest, so that its reader gets to see them.
    fn replaced(&self, file: &str, bytes: &[u8], read: impl FnOnce() -> bool) -> bool {
        let known = ["manifest.json", file].map(|file| (file, self.read(file)));
        fs::write(self.dir.join(file), bytes).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&known[0].1).unwrap();
        for entry in manifest["files"].as_array_mut().unwrap() {
            if entry["name"] == file {
                entry["bytes"] = json!(bytes.len());
                entry["blake3"] = json!(blake3::hash(bytes).to_hex().to_string());
            }
        }
        fs::write(self.dir.join("manifest.json"), manifest.to_string()).unwrap();
        let found = read();
        for (file, bytes) in known {
            fs::write(self.dir.join(file), bytes).unwrap();
        }
        found
    }
}

/// The directory of a run.
pub struct Run(TempDir);

impl Run {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Whether `bytes` are a run's configuration.
    pub fn config(&self, bytes: &[u8]) -> bool {
        fs::write(self.dir().join("config.toml"), bytes).unwrap();
        clear(stored_config(self.dir())) & clear(Inspection::of(self.dir()))
    }

    /// Whether a run with this log can be inspected.
    pub fn log(&self, bytes: &[u8]) -> bool {
        fs::write(self.dir().join("metrics.jsonl"), bytes).unwrap();
        clear(Inspection::of(self.dir()))
    }
}
