//! A folder to be changed: a copy of one that transformers made for `verify`, which holds its numbers.

use std::fs;
use std::path::{Path, PathBuf};

use hybridnorm_interop::{Dtype, InteropError, Pretrained, TensorFile};
use hybridnorm_testing::{any_device, parameters};
use safetensors::tensor::{TensorView, serialize_to_file};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

pub fn reference(case: &str) -> PathBuf {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hybridnorm-train/reference");
    reference.join(case).join("model")
}

/// A tensor by name: type, shape, bytes.
pub type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// A copy of a case's folder, to be changed.
pub struct Folder(pub TempDir);

impl Folder {
    pub fn of(case: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        for entry in fs::read_dir(reference(case)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(
                entry.path(),
                folder.path(entry.file_name().to_str().unwrap()),
            )
            .unwrap();
        }
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn tensors(&self) -> Vec<Tensor> {
        let file = TensorFile::open(self.path("model.safetensors")).unwrap();
        let names = file.names();
        let tensor = |name: String| {
            let array = file.array(&name).unwrap();
            let values = array.values.iter().map(|x| *x as f32);
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (name, Dtype::F32, array.shape, bytes)
        };
        names.into_iter().map(tensor).collect()
    }

    pub fn write(&self, name: &str, tensors: &[Tensor]) {
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (name.clone(), view)
        });
        serialize_to_file(views, None, &self.path(name)).unwrap();
    }

    pub fn configure(&self, change: impl FnOnce(&mut Map<String, Value>)) {
        let path = self.path("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    }

    /// In two files, with an index.
    pub fn shard(&self) {
        let tensors = self.tensors();
        fs::remove_file(self.path("model.safetensors")).unwrap();
        let (first, second) = tensors.split_at(tensors.len() / 2);
        let files = [
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
        ];
        let mut map = Map::new();
        for (file, tensors) in files.into_iter().zip([first, second]) {
            self.write(file, tensors);
            let names = tensors.iter().map(|(name, ..)| (name.clone(), file.into()));
            map.extend(names);
        }
        self.index(json!({"metadata": {"total_size": 1}, "weight_map": map}));
    }

    pub fn index(&self, index: Value) {
        let path = self.path("model.safetensors.index.json");
        fs::write(path, index.to_string()).unwrap();
    }

    pub fn open(&self) -> Result<Pretrained, InteropError> {
        Pretrained::open(self.0.path())
    }

    /// The refusal, which is one line.
    pub fn refusal(&self) -> String {
        let opened = self.open().and_then(|folder| folder.load(&any_device()));
        let error = opened.unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
        error
    }
}

/// Every parameter, in the order of their names.
pub fn numbers(folder: &Folder) -> Vec<f64> {
    let model = folder.open().unwrap().load(&any_device()).unwrap();
    parameters(&model).into_values().flatten().collect()
}
