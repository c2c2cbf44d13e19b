//! The default corpus: Rust source text that every machine which built this program already holds.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_lock::Lockfile;
use walkdir::WalkDir;

use super::generated::looks_generated;
use super::input::relative_name;
use super::pinned::{CRATES, find_lock, lock_candidates, newest_versions};
use super::{Corpus, DataError, Document, Source};

/// Bytes of text that the default corpus never passes: 24 MiB, room enough for all its crates.
pub const DEFAULT_MAX_BYTES: u64 = 24 << 20;

impl Corpus {
    /// The default corpus: the `.rs` files under `src/` of some eighty crates that this program is built from,
    /// as pinned by its `Cargo.lock` and found in the user's Cargo registry (`$CARGO_HOME`, otherwise `~/.cargo`).
    ///
    /// Nothing is downloaded. `Cargo.lock` is looked for upwards from the current directory, then where this program
    /// was built; a lock of another project, without the package `hybridnorm-train`, is passed over. Where a lock
    /// pins several versions of a crate the newest is read, because the same file twice, once on each side of the
    /// split, would flatter the validation loss; for the same reason a text seen before is dropped. Machine-made
    /// files (marked as such, tables, very long lines, over 256 KiB) and files that are not UTF-8 are left out.
    /// Crates are read by name and files by path until the next file would pass `max_bytes`.
    ///
    /// Each file is a [`Document`] named `NAME-VERSION/src/…`, each crate a [`Source`]; what was left out, and any
    /// crate that is not on this machine, stands in [`Corpus::notes`].
    ///
    /// # Errors
    ///
    /// There is no such `Cargo.lock`, no Cargo home, or none of the crates in it; or a file cannot be read.
    pub fn from_cargo_registry(max_bytes: u64) -> Result<Self, DataError> {
        let lock = find_lock(&lock_candidates())?;
        let home = env::var_os("CARGO_HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".cargo")))
            .ok_or_else(|| {
                DataError::no_default_corpus(
                    "neither $CARGO_HOME nor a home directory is set".to_owned(),
                )
            })?;
        read(&lock, CRATES, &home.join("registry").join("src"), max_bytes)
    }
}

/// What was left out, for [`Corpus::notes`].
#[derive(Default)]
struct LeftOut {
    unpinned: Vec<String>,
    absent: Vec<String>,
    generated: usize,
    repeated: usize,
    not_utf8: usize,
    capped_at: Option<String>,
}

fn read(
    lock: &Lockfile,
    names: &[&str],
    registry: &Path,
    max_bytes: u64,
) -> Result<Corpus, DataError> {
    let indices = subdirectories(registry)?;
    let newest = newest_versions(lock);
    let mut left_out = LeftOut::default();
    let (mut documents, mut sources) = (Vec::<Document>::new(), Vec::new());
    let mut seen = BTreeSet::new();
    let mut room = max_bytes;
    'crates: for &name in names {
        let Some(version) = newest.get(name) else {
            left_out.unpinned.push(name.to_owned());
            continue;
        };
        let package = format!("{name}-{version}");
        let Some(root) = indices
            .iter()
            .map(|index| index.join(&package))
            .find(|root| root.is_dir())
        else {
            left_out.absent.push(package);
            continue;
        };
        let before = room;
        for (file, bytes) in rust_files(&root)? {
            let Ok(text) = String::from_utf8(bytes) else {
                left_out.not_utf8 += 1;
                continue;
            };
            if text.trim().is_empty() {
                continue;
            }
            if looks_generated(&text) {
                left_out.generated += 1;
                continue;
            }
            if !seen.insert(*blake3::hash(text.as_bytes()).as_bytes()) {
                left_out.repeated += 1;
                continue;
            }
            let name = format!("{package}/{file}");
            let Some(rest) = room.checked_sub(text.len() as u64) else {
                left_out.capped_at = Some(name);
                push_source(&mut sources, package, before - room);
                break 'crates;
            };
            room = rest;
            documents.push(Document { name, text });
        }
        push_source(&mut sources, package, before - room);
    }
    if documents.is_empty() {
        return Err(DataError::no_default_corpus(format!(
            "none of the {} crates it is made of is under {} within {max_bytes} bytes",
            names.len(),
            registry.display()
        )));
    }
    let description = format!(
        "Rust source of {} crates pinned by Cargo.lock, {} files",
        sources.len(),
        documents.len()
    );
    let notes = left_out.notes(max_bytes);
    Ok(Corpus::assemble(documents, description, sources, notes))
}

fn push_source(sources: &mut Vec<Source>, name: String, bytes: u64) {
    if bytes > 0 {
        sources.push(Source { name, bytes });
    }
}

/// The directories below `registry`, one for each index that Cargo has used, in order.
fn subdirectories(registry: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !registry.is_dir() {
        return Err(DataError::no_default_corpus(format!(
            "{} does not exist",
            registry.display()
        )));
    }
    let failed = |source| DataError::Read {
        path: registry.to_owned(),
        source,
    };
    let mut directories = Vec::new();
    for entry in fs::read_dir(registry).map_err(failed)? {
        directories.push(entry.map_err(failed)?.path());
    }
    directories.sort();
    Ok(directories)
}

/// The `.rs` files under `src/` of a crate as (path below the crate, bytes), ordered by path.
fn rust_files(root: &Path) -> Result<Vec<(String, Vec<u8>)>, DataError> {
    let source = root.join("src");
    if !source.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in WalkDir::new(source) {
        let entry = entry.map_err(|error| DataError::Read {
            path: error.path().unwrap_or(root).to_owned(),
            source: error.into(),
        })?;
        if entry.file_type().is_file() && entry.path().extension().is_some_and(|e| e == "rs") {
            let bytes = fs::read(entry.path()).map_err(|source| DataError::Read {
                path: entry.path().to_owned(),
                source,
            })?;
            files.push((relative_name(root, entry.path()), bytes));
        }
    }
    files.sort();
    Ok(files)
}

impl LeftOut {
    fn notes(self, max_bytes: u64) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.absent.is_empty() {
            notes.push(format!(
                "not in the Cargo registry, so this is not the whole default corpus (run `cargo fetch`): {}",
                self.absent.join(", ")
            ));
        }
        if !self.unpinned.is_empty() {
            notes.push(format!("not in Cargo.lock: {}", self.unpinned.join(", ")));
        }
        for (count, what) in [
            (self.generated, "machine-made files"),
            (self.repeated, "files that repeat an earlier one"),
            (self.not_utf8, "files that are not UTF-8"),
        ] {
            if count > 0 {
                notes.push(format!("left out {what}: {count}"));
            }
        }
        if let Some(name) = self.capped_at {
            notes.push(format!(
                "stopped before {name}: the cap is {max_bytes} bytes"
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::super::pinned::tests::lock;
    use super::*;

    fn registry(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = directory.path().join("index.crates.io-0").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        directory
    }

    #[test]
    fn the_newest_pinned_version_of_each_listed_crate_is_read() {
        let lock = lock(&[
            ("alpha", "0.9.0"),
            ("alpha", "0.10.0"),
            ("beta", "1.0.0+x"),
            ("gone", "1.0.0"),
            ("other", "1.0.0"),
        ]);
        let registry = registry(&[
            ("alpha-0.9.0/src/lib.rs", b"old"),
            ("alpha-0.10.0/src/lib.rs", b"fn lib() {}"),
            ("alpha-0.10.0/src/a/z.rs", b"fn z() {}"),
            ("alpha-0.10.0/src/data.txt", b"text"),
            ("alpha-0.10.0/build.rs", b"fn main() {}"),
            ("alpha-0.10.0/src/table.rs", b"// @generated\n"),
            ("alpha-0.10.0/src/bad.rs", b"\xff"),
            ("beta-1.0.0+x/src/same.rs", b"fn z() {}"),
            ("beta-1.0.0+x/src/own.rs", b"fn own() {}"),
            ("other-1.0.0/src/lib.rs", b"fn other() {}"),
        ]);
        let names = ["alpha", "beta", "gone", "never"];
        let corpus = read(&lock, &names, registry.path(), 1000).unwrap();
        let documents: Vec<_> = corpus.documents.iter().map(|d| d.name.as_str()).collect();
        assert_eq!(
            documents,
            [
                "alpha-0.10.0/src/a/z.rs",
                "alpha-0.10.0/src/lib.rs",
                "beta-1.0.0+x/src/own.rs"
            ]
        );
        let sources: Vec<_> = corpus
            .sources
            .iter()
            .map(|s| (s.name.as_str(), s.bytes))
            .collect();
        assert_eq!(sources, [("alpha-0.10.0", 20), ("beta-1.0.0+x", 11)]);
        assert_eq!(
            corpus.notes,
            [
                "not in the Cargo registry, so this is not the whole default corpus (run `cargo fetch`): gone-1.0.0",
                "not in Cargo.lock: never",
                "left out machine-made files: 1",
                "left out files that repeat an earlier one: 1",
                "left out files that are not UTF-8: 1",
            ]
        );
    }

    #[test]
    fn the_default_corpus_is_whole_on_a_machine_that_built_it() {
        let corpus = Corpus::from_cargo_registry(DEFAULT_MAX_BYTES).unwrap();
        assert_eq!(corpus.sources.len(), CRATES.len(), "{:?}", corpus.notes);
        assert!(
            !corpus.notes.iter().any(|note| note.starts_with("stopped")),
            "{:?}",
            corpus.notes
        );
    }

    #[test]
    fn the_cap_stops_before_the_file_that_would_pass_it() {
        let lock = lock(&[("alpha", "1.0.0"), ("beta", "1.0.0")]);
        let registry = registry(&[
            ("alpha-1.0.0/src/a.rs", b"12345"),
            ("alpha-1.0.0/src/b.rs", b"fn b() {}"),
            ("beta-1.0.0/src/c.rs", b"x"),
        ]);
        let names = ["alpha", "beta"];
        // `a.rs` is all digits, and left out before it is weighed.
        let corpus = read(&lock, &names, registry.path(), 9).unwrap();
        assert_eq!(corpus.bytes, 9);
        assert_eq!(corpus.documents[0].name, "alpha-1.0.0/src/b.rs");
        assert_eq!(
            corpus.notes.last().unwrap(),
            "stopped before beta-1.0.0/src/c.rs: the cap is 9 bytes"
        );
        let error = read(&lock, &names, registry.path(), 8).unwrap_err();
        assert!(
            matches!(error, DataError::NoDefaultCorpus { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_registry_that_does_not_exist_is_an_error_that_says_what_to_do() {
        let error = read(&lock(&[]), &["alpha"], Path::new("/nowhere/at/all"), 9).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the default corpus was not found: /nowhere/at/all does not exist: \
             run `cargo fetch` in the hybridnorm repository, or give `--data FILE|DIR`"
        );
    }
}
