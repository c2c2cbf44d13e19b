//! Which crates the default corpus is made of, and which versions `Cargo.lock` pins.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};

use cargo_lock::{Lockfile, Version};

use super::DataError;

/// This program's own package: only a `Cargo.lock` that has it pins the default corpus.
const OWN_PACKAGE: &str = "hybridnorm-train";

/// The crates whose sources make up the default corpus, in the order they are read.
///
/// A list, and not "whatever lies in the registry", because Cargo unpacks only what the host and the chosen
/// features need. These are dependencies of the default build on Linux, macOS and Windows alike, so that the same
/// `Cargo.lock` gives the same corpus everywhere. Left out on purpose: bindings to C and to operating systems,
/// wrappers of processor instructions, Unicode tables, crates of a few lines, `serde_core`, whose files `serde` repeats, and
/// `regex-automata`, a tenth of the whole by itself.
pub(super) const CRATES: &[&str] = &[
    "aho-corasick",
    "anstream",
    "arrayvec",
    "bitflags",
    "blake3",
    "burn",
    "burn-autodiff",
    "burn-backend",
    "burn-core",
    "burn-dataset",
    "burn-derive",
    "burn-dispatch",
    "burn-flex",
    "burn-ir",
    "burn-linalg",
    "burn-nn",
    "burn-optim",
    "burn-pack",
    "burn-std",
    "burn-tensor",
    "burn-train",
    "bytemuck",
    "bytes",
    "ciborium",
    "clap",
    "clap_builder",
    "clap_derive",
    "console",
    "crossbeam-channel",
    "crossbeam-deque",
    "crossbeam-epoch",
    "crossbeam-utils",
    "csv",
    "derive_more-impl",
    "either",
    "fancy-regex",
    "futures-core",
    "glob",
    "hashbrown",
    "heck",
    "indexmap",
    "indicatif",
    "lock_api",
    "log",
    "memchr",
    "nom",
    "num-traits",
    "once_cell",
    "parking_lot",
    "parking_lot_core",
    "percent-encoding",
    "proc-macro2",
    "quote",
    "rand",
    "rand_chacha",
    "rand_core",
    "rayon",
    "rayon-core",
    "regex",
    "regex-syntax",
    "rmp",
    "rmp-serde",
    "safetensors",
    "semver",
    "serde",
    "serde_derive",
    "serde_json",
    "smallvec",
    "spin",
    "strum_macros",
    "syn",
    "synstructure",
    "thiserror-impl",
    "thread_local",
    "tokenizers",
    "toml",
    "toml_edit",
    "toml_parser",
    "tracing-core",
    "url",
    "walkdir",
];

/// Where the `Cargo.lock` of this program may stand, best first.
pub(super) fn lock_candidates() -> Vec<PathBuf> {
    let built_in = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut candidates = Vec::new();
    if let Ok(current) = env::current_dir() {
        candidates.extend(
            current
                .ancestors()
                .map(|directory| directory.join("Cargo.lock")),
        );
    }
    // The workspace; then the program's package beside this one, which is where `cargo install` unpacks its lock.
    let program = format!("../{OWN_PACKAGE}-{}", env!("CARGO_PKG_VERSION"));
    candidates.push(built_in.join("../../Cargo.lock"));
    candidates.push(built_in.join(program).join("Cargo.lock"));
    candidates
}

pub(super) fn find_lock(candidates: &[PathBuf]) -> Result<Lockfile, DataError> {
    let mut unreadable = None;
    for path in candidates.iter().filter(|path| path.is_file()) {
        match Lockfile::load(path) {
            Ok(lock) if lock.packages.iter().any(|p| p.name.as_str() == OWN_PACKAGE) => {
                return Ok(lock);
            }
            Ok(_) => {}
            // Most likely another project's, as those that can be read.
            Err(error) => {
                unreadable.get_or_insert(format!("{} cannot be read: {error}", path.display()));
            }
        }
    }
    Err(DataError::no_default_corpus(unreadable.unwrap_or_else(|| {
        format!(
            "no Cargo.lock with the package {OWN_PACKAGE} at or above the current directory, nor where the program was built"
        )
    })))
}

/// Of each registry crate in the lock, the newest version.
pub(super) fn newest_versions(lock: &Lockfile) -> BTreeMap<&str, &Version> {
    let mut newest = BTreeMap::new();
    for package in &lock.packages {
        if package
            .source
            .as_ref()
            .is_some_and(|source| source.is_registry())
        {
            newest
                .entry(package.name.as_str())
                .and_modify(|version: &mut &Version| *version = (*version).max(&package.version))
                .or_insert(&package.version);
        }
    }
    newest
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use super::*;

    const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

    pub(crate) fn lock(packages: &[(&str, &str)]) -> Lockfile {
        let mut text = "version = 4\n".to_owned();
        for (name, version) in packages {
            text += &format!(
                "\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = \"{REGISTRY}\"\n"
            );
        }
        text.parse().unwrap()
    }

    #[test]
    fn a_lock_of_another_project_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let [theirs, ours] = ["theirs.lock", "ours.lock"].map(|name| directory.path().join(name));
        fs::write(&theirs, lock(&[("alpha", "1.0.0")]).to_string()).unwrap();
        let broken = directory.path().join("broken.lock");
        fs::write(&broken, "version = ").unwrap();
        fs::write(&ours, lock(&[(OWN_PACKAGE, "0.1.0")]).to_string()).unwrap();
        let none = directory.path().join("none.lock");
        let found = find_lock(&[none, theirs.clone(), broken.clone(), ours]).unwrap();
        assert_eq!(found.packages[0].name.as_str(), OWN_PACKAGE);
        let refused = |candidates: &[PathBuf]| find_lock(candidates).unwrap_err().to_string();
        let other = std::slice::from_ref(&theirs);
        assert!(refused(other).contains("no Cargo.lock with"));
        assert!(refused(&[broken, theirs]).contains("broken.lock cannot be read"));
    }

    #[test]
    fn every_listed_crate_is_pinned_and_the_list_is_in_order() {
        assert!(CRATES.is_sorted());
        let lock = find_lock(&lock_candidates()).unwrap();
        let newest = newest_versions(&lock);
        let unpinned: Vec<_> = CRATES
            .iter()
            .filter(|name| !newest.contains_key(*name))
            .collect();
        assert!(unpinned.is_empty(), "not in Cargo.lock: {unpinned:?}");
    }
}
