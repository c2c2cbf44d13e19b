//! A folder that appears whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ExportError;
use crate::checkpoint::sync_dir;

/// A folder that is being built beside its place. It goes when it is dropped before it is finished.
#[derive(Debug)]
pub struct NewFolder {
    out: PathBuf,
    aside: PathBuf,
    finished: bool,
}

impl NewFolder {
    /// Begins the folder that is to become `out`; one that is empty may be there, and with `force` one that holds a model.
    ///
    /// # Errors
    /// When something else is there, or the place cannot be written to.
    pub fn create(out: &Path, force: bool) -> Result<Self, ExportError> {
        let path = out.to_path_buf();
        match fs::read_dir(out) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    if !force {
                        return Err(ExportError::Taken { path });
                    }
                    if !out.join("config.json").is_file() {
                        return Err(ExportError::NotAModel { path });
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ExportError::io("use", out)(error)),
        }
        let aside = beside(out, "partial");
        remove(&aside)?;
        fs::create_dir_all(&aside).map_err(ExportError::io("create", out))?;
        Ok(Self {
            out: out.to_path_buf(),
            aside,
            finished: false,
        })
    }

    /// Where its files go meanwhile.
    pub fn path(&self) -> &Path {
        &self.aside
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// When the file system refuses; what was there before is there again then.
    pub fn finish(mut self) -> Result<(), ExportError> {
        sync_dir(&self.aside).map_err(ExportError::io("sync", &self.aside))?;
        let old = beside(&self.out, "old");
        let replaces = self.out.is_dir();
        if replaces {
            remove(&old)?;
            fs::rename(&self.out, &old).map_err(ExportError::io("rename", &self.out))?;
        }
        if let Err(error) = fs::rename(&self.aside, &self.out) {
            if replaces {
                // The error is what to report; where the old folder cannot be put back either, it lies beside its place.
                let _ = fs::rename(&old, &self.out);
            }
            return Err(ExportError::io("rename", &self.aside)(error));
        }
        self.finished = true;
        if replaces {
            remove(&old)?;
        }
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.finished {
            // What went wrong is the error to report.
            let _ = fs::remove_dir_all(&self.aside);
        }
    }
}

/// `.NAME.WHAT-PID` in the same folder.
fn beside(out: &Path, what: &str) -> PathBuf {
    let name = out.file_name().unwrap_or(out.as_os_str()).to_string_lossy();
    out.with_file_name(format!(".{name}.{what}-{}", std::process::id()))
}

fn remove(dir: &Path) -> Result<(), ExportError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ExportError::io("remove", dir)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("model");
        let entries = || fs::read_dir(place.path()).unwrap().count();
        drop(NewFolder::create(&out, false).unwrap());
        assert_eq!(entries(), 0);
        let folder = NewFolder::create(&out, false).unwrap();
        fs::write(folder.path().join("config.json"), "{}").unwrap();
        assert!(!out.exists());
        folder.finish().unwrap();
        assert_eq!(
            (
                entries(),
                fs::read_to_string(out.join("config.json"))
                    .unwrap()
                    .as_str()
            ),
            (1, "{}")
        );
    }

    #[test]
    fn what_is_there_stays_unless_it_is_a_model_to_be_replaced() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("model");
        fs::create_dir(&out).unwrap();
        NewFolder::create(&out, false).unwrap().finish().unwrap();
        fs::write(out.join("mine.txt"), "mine").unwrap();
        assert!(matches!(
            NewFolder::create(&out, false),
            Err(ExportError::Taken { .. })
        ));
        assert!(matches!(
            NewFolder::create(&out, true),
            Err(ExportError::NotAModel { .. })
        ));
        fs::write(out.join("config.json"), "{}").unwrap();
        // Given up: all is as before.
        drop(NewFolder::create(&out, true).unwrap());
        assert!(out.join("mine.txt").is_file());
        NewFolder::create(&out, true).unwrap().finish().unwrap();
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
        fs::write(place.path().join("file"), "").unwrap();
        assert!(NewFolder::create(&place.path().join("file"), true).is_err());
    }
}
