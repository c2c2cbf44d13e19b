//! The folder that is being prepared: who may write it, and what is known of it.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Seen;
use super::state::{Settings, State};
use crate::shards::{INDEX_FILE, TOKENIZER_FILE, sync_directory, write_whole};
use crate::{DataError, Index, Shards, Side, TokenizerRecord};

const PROGRESS_FILE: &str = "progress.json";
const LOCK_FILE: &str = "lock";
/// The keys of all documents so far, 16 bytes each.
const KEYS_FILE: &str = "documents.keys";
const KEY_BYTES: u64 = 16;

/// A folder that this process alone writes.
pub(super) struct Folder {
    dir: PathBuf,
    /// Whether it was not there before.
    is_new: bool,
    /// Held until the folder is dropped.
    _lock: File,
}

/// Where to begin.
pub(super) enum Begin {
    /// The folder is prepared already.
    Done(Index),
    /// At the mark of this state.
    From(Folder, Box<State>),
}

impl Folder {
    /// Takes the folder, which is new, empty, or what an earlier run with the same settings left.
    pub(super) fn begin(dir: &Path, settings: Settings) -> Result<Begin, DataError> {
        let is_new = !dir.exists();
        fs::create_dir_all(dir).map_err(|source| DataError::write(dir, source))?;
        let has = |name: &str| dir.join(name).is_file();
        let begun = has(PROGRESS_FILE) || has(INDEX_FILE) || has(LOCK_FILE);
        let mut entries = fs::read_dir(dir).map_err(|source| DataError::read(dir, source))?;
        if !begun && entries.next().is_some() {
            let message =
                "it holds other files: give a new or an empty folder, or one that `prepare` began";
            return Err(DataError::shard(dir, message));
        }
        if has(INDEX_FILE) {
            let shards = Shards::open(dir)?;
            same(dir, &settings, &settings_of(shards.index(), &settings))?;
            if has(PROGRESS_FILE) {
                // Killed between its last two breaths.
                Self::lock(dir, false)?.clear()?;
            }
            return Ok(Begin::Done(shards.index().clone()));
        }
        let folder = Self::lock(dir, is_new)?;
        let path = folder.at(PROGRESS_FILE);
        if !path.is_file() {
            let state = State::new(settings);
            folder.record(&state, None)?;
            return Ok(Begin::From(folder, Box::new(state)));
        }
        let bytes = fs::read(&path).map_err(|source| DataError::read(&path, source))?;
        let mut state: State = serde_json::from_slice(&bytes).map_err(|error| {
            DataError::shard(&path, format!("it is damaged: {error}: remove the folder"))
        })?;
        same(dir, &settings, &state.settings)?;
        state.settings = settings;
        Ok(Begin::From(folder, Box::new(state)))
    }

    fn lock(dir: &Path, is_new: bool) -> Result<Self, DataError> {
        let path = dir.join(LOCK_FILE);
        let lock = File::create(&path).map_err(|source| DataError::write(&path, source))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                is_new,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DataError::Busy {
                path: dir.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(DataError::write(&path, source)),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The keys of the documents written so far, if repeated ones are to be dropped.
    pub(super) fn seen(&self, state: &State) -> Result<Option<Seen>, DataError> {
        if !state.settings.deduplicate {
            return Ok(None);
        }
        let documents = state.progress().documents;
        let mut seen = Seen::new();
        if documents > 0 {
            let path = self.at(KEYS_FILE);
            let refused = |source| DataError::read(&path, source);
            let file = File::open(&path).map_err(refused)?;
            let mut keys = std::io::BufReader::new(file);
            for _ in 0..documents {
                let mut key = [0; KEY_BYTES as usize];
                keys.read_exact(&mut key).map_err(refused)?;
                seen.insert(u128::from_le_bytes(key));
            }
        }
        Ok(Some(seen))
    }

    /// Says on disk how far the preparation is; `keys` are those of the documents since the last time.
    pub(super) fn record(&self, state: &State, keys: Option<&[u8]>) -> Result<(), DataError> {
        if let Some(keys) = keys {
            let path = self.at(KEYS_FILE);
            // A run that was killed between the two files has left keys that do not count.
            let keys_after = state.progress().documents.saturating_mul(KEY_BYTES);
            let end = keys_after.saturating_sub(keys.len() as u64);
            let append = || -> std::io::Result<()> {
                let mut file = File::options()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .open(&path)?;
                file.set_len(end)?;
                file.seek(SeekFrom::Start(end))?;
                file.write_all(keys)?;
                file.sync_all()
            };
            append().map_err(|source| DataError::write(&path, source))?;
        }
        sync_directory(&self.dir)?;
        let path = self.at(PROGRESS_FILE);
        let json = serde_json::to_vec_pretty(state)
            .map_err(|error| DataError::write(&path, error.into()))?;
        write_whole(&path, &json).map(drop)
    }

    /// Writes the index and removes what only the preparation needed. A folder that lacks a side is emptied, so that
    /// it can be prepared with another fraction, and removed if this call made it.
    pub(super) fn finish(self, state: State) -> Result<Index, DataError> {
        let (train, validation) = (state.train.len(), state.validation.len());
        let fraction = state.settings.validation_fraction;
        if train == 0 || validation == 0 && fraction > 0.0 {
            let progress = state.progress();
            for (side, count) in [(Side::Train, train), (Side::Validation, validation)] {
                for number in 0..count {
                    for ending in side.endings() {
                        self.remove(&side.file_name(number, ending))?;
                    }
                }
            }
            self.clear()?;
            if self.is_new {
                fs::remove_dir(&self.dir).map_err(|source| DataError::write(&self.dir, source))?;
            }
            return Err(DataError::OneSided {
                fraction,
                documents: progress.documents,
                bytes: progress.text_bytes,
                held_out: validation > 0,
            });
        }
        let copy = |path: &PathBuf| {
            let bytes = fs::read(path).map_err(|source| DataError::read(path, source))?;
            write_whole(&self.at(TOKENIZER_FILE), &bytes)
        };
        let tokenizer = TokenizerRecord {
            identity: state.settings.tokenizer.clone(),
            file: state
                .settings
                .tokenizer_file
                .as_ref()
                .map(copy)
                .transpose()?,
        };
        let index = state.into_index(tokenizer);
        let path = self.at(INDEX_FILE);
        let mut json = serde_json::to_vec_pretty(&index)
            .map_err(|error| DataError::write(&path, error.into()))?;
        json.push(b'\n');
        write_whole(&path, &json)?;
        self.clear()?;
        Ok(index)
    }

    fn clear(&self) -> Result<(), DataError> {
        for name in [PROGRESS_FILE, KEYS_FILE, LOCK_FILE] {
            self.remove(name)?;
        }
        sync_directory(&self.dir)
    }

    fn remove(&self, name: &str) -> Result<(), DataError> {
        let path = self.at(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DataError::write(&path, error))
            }
            _ => Ok(()),
        }
    }
}

fn same(dir: &Path, asked: &Settings, found: &Settings) -> Result<(), DataError> {
    match found.difference(asked) {
        None => Ok(()),
        Some((field, found, expected)) => Err(DataError::OtherPreparation {
            path: dir.to_owned(),
            field,
            found,
            expected,
        }),
    }
}

/// What a finished folder was prepared with, as far as its index tells; the rest as it is asked for.
fn settings_of(index: &Index, asked: &Settings) -> Settings {
    Settings {
        tokenizer: index.tokenizer.identity.clone(),
        vocab_size: index.vocab_size,
        end_of_document: index.end_of_document,
        validation_fraction: index.validation_fraction,
        deduplicate: index.duplicates.is_some(),
        shard_tokens: index.shard_tokens,
        max_document_bytes: index.max_document_bytes,
        inputs: index.inputs.clone(),
        ..asked.clone()
    }
}
