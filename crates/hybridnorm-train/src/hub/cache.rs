//! The folder of one repository, laid out as `huggingface_hub` does.

use std::fs;
use std::path::{Path, PathBuf};

use super::Want;
use super::error::HubError;
use super::reference::Reference;

/// The file that every model has.
pub const CONFIG: &str = "config.json";
/// The file that holds all weights.
pub const SINGLE: &str = "model.safetensors";
/// The file that says which file holds which weights.
pub const INDEX: &str = "model.safetensors.index.json";
/// What is fetched beside them, where it is there.
pub const EXTRAS: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// What is kept of a repository.
#[derive(Debug)]
pub struct Repository {
    dir: PathBuf,
    locks: PathBuf,
}

impl Repository {
    pub fn new(cache: &Path, reference: &Reference) -> Self {
        let folder = format!("models--{}--{}", reference.owner, reference.name);
        Self {
            dir: cache.join(&folder),
            locks: cache.join(".locks").join(folder),
        }
    }

    /// The files of a commit.
    pub fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// The content that links point to.
    pub fn blob(&self, id: &str) -> PathBuf {
        self.dir.join("blobs").join(id)
    }

    /// What keeps two processes from writing a blob at once.
    pub fn lock(&self, id: &str) -> PathBuf {
        self.locks.join(format!("{id}.lock"))
    }

    /// The newest commit known of a revision, if the revision is none itself.
    pub fn known_commit(&self, revision: &str) -> Option<String> {
        let noted = fs::read_to_string(self.dir.join("refs").join(revision)).ok();
        let noted = noted.map(|text| text.trim().to_string());
        noted.or_else(|| {
            self.snapshot(revision)
                .is_dir()
                .then(|| revision.to_string())
        })
    }

    /// Notes the commit behind a revision.
    pub fn note_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.dir.join("refs").join(revision);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(HubError::io("create", parent))?;
        }
        fs::write(&path, commit).map_err(HubError::io("write", &path))
    }

    /// Makes `blob` the content of `file` in a commit's folder.
    pub fn link(&self, commit: &str, file: &str, id: &str) -> Result<(), HubError> {
        let snapshot = self.snapshot(commit);
        fs::create_dir_all(&snapshot).map_err(HubError::io("create", &snapshot))?;
        let (path, blob) = (snapshot.join(file), self.blob(id));
        // An earlier link may point to what is no longer there.
        let _ = fs::remove_file(&path);
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(Path::new("../../blobs").join(id), &path);
        #[cfg(not(unix))]
        let linked = Err::<(), _>(std::io::Error::from(std::io::ErrorKind::Unsupported));
        // A file system without links gets the file itself.
        linked
            .or_else(|_| fs::rename(&blob, &path))
            .map_err(HubError::io("link", &path))
    }
}

/// Whether `dir` holds all that is wanted of a model.
pub fn is_whole(dir: &Path, want: Want) -> bool {
    let has = |name: &str| dir.join(name).is_file();
    if !has(CONFIG) {
        return false;
    }
    want == Want::Config
        || has(SINGLE)
        || shards(dir).is_some_and(|names| names.iter().all(|name| has(name)))
}

/// The files that the index in `dir` names; `None` where there is none that can be read, or it names one that lies elsewhere.
pub fn shards(dir: &Path) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let text = fs::read(dir.join(INDEX)).ok()?;
    let index: Index = serde_json::from_slice(&text).ok()?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    let plain = |name: &String| {
        Path::new(name).file_name() == Some(name.as_ref()) && !name.contains(['/', '\\'])
    };
    (!names.is_empty() && names.iter().all(plain)).then_some(names)
}
