//! `probe.jsonl`: measurements are only ever appended, so a kill loses the one in progress and nothing else.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::record::{Line, Setting};
use crate::engine::{Difference, differing_fields};
use crate::error::Error;
use crate::json::as_read;

/// Its name, in the probe's directory.
pub const PROBE: &str = "probe.jsonl";

/// An open `probe.jsonl`. Nobody else can open it while this value lives.
#[derive(Debug)]
pub struct ProbeFile {
    path: PathBuf,
    file: File,
    lines: Vec<Line>,
}

impl ProbeFile {
    /// Refuses a directory that `setting` cannot be measured into, without leaving anything behind. Gives the measurements that are
    /// there.
    ///
    /// # Errors
    /// When it holds something else, or measurements in another setting.
    pub fn check(dir: &Path, setting: &Setting) -> Result<Vec<Line>, Error> {
        let path = dir.join(PROBE);
        if !path.exists() {
            let taken = dir.exists()
                && (!dir.is_dir()
                    || fs::read_dir(dir).map_err(Error::io("read", dir))?.count() > 0);
            return match taken {
                true => Err(Error::Usage(format!(
                    "{} holds something else than a probe: choose another --out",
                    dir.display()
                ))),
                false => Ok(Vec::new()),
            };
        }
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let (lines, _) = read(&path, &file)?;
        same_setting(&path, setting, &lines)?;
        Ok(lines)
    }

    /// Opens, or begins, the measurements in `dir`. What a crash tore is cut off.
    ///
    /// # Errors
    /// As [`check`](Self::check); when another process measures into it; when the file system refuses.
    pub fn open(dir: &Path, setting: &Setting) -> Result<Self, Error> {
        Self::check(dir, setting)?;
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let path = dir.join(PROBE);
        let mut options = OpenOptions::new();
        let options = options.create(true).read(true).append(true);
        let mut file = options.open(&path).map_err(Error::io("open", &path))?;
        // A file system without locks is no reason not to measure on it.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::Usage(format!(
                "{} is in use by another probe",
                path.display()
            )));
        }
        let (lines, whole) = read(&path, &file)?;
        same_setting(&path, setting, &lines)?;
        let cut = file.set_len(whole);
        cut.map_err(Error::io("cut", &path))?;
        let end = file.seek(SeekFrom::End(0));
        end.map_err(Error::io("read", &path))?;
        let mut opened = Self { path, file, lines };
        if opened.lines.is_empty() {
            opened.append(Line::Setting(Box::new(setting.clone())))?;
        }
        Ok(opened)
    }

    /// Adds a measurement, and brings it to the disk itself.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn append(&mut self, line: Line) -> Result<(), Error> {
        let mut text = serde_json::to_vec(&line)
            .map_err(|error| Error::io("write", &self.path)(error.into()))?;
        text.push(b'\n');
        let written = self.file.write_all(&text);
        let written = written.and_then(|()| self.file.sync_data());
        written.map_err(Error::io("write", &self.path))?;
        self.lines.push(as_read(line, &text));
        Ok(())
    }

    /// Everything that was measured, the setting first.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
}

/// The lines, but for a last one that is torn, and how many bytes they are.
fn read(path: &Path, file: &File) -> Result<(Vec<Line>, u64), Error> {
    let mut reader = BufReader::new(file);
    let (mut lines, mut text, mut whole) = (Vec::new(), Vec::new(), 0);
    loop {
        text.clear();
        let bytes = reader.read_until(b'\n', &mut text);
        whole += bytes.map_err(Error::io("read", path))? as u64;
        if !text.ends_with(b"\n") {
            return Ok((lines, whole - text.len() as u64));
        }
        // Only what this program wrote is ever cut.
        let line = serde_json::from_slice(&text).map_err(|error| {
            Error::Usage(format!(
                "{}:{}: not a measurement ({error}): mend or remove it, or give another --out",
                path.display(),
                lines.len() + 1,
            ))
        })?;
        lines.push(line);
    }
}

/// Refuses measurements that were taken in another setting than `setting`.
fn same_setting(path: &Path, setting: &Setting, lines: &[Line]) -> Result<(), Error> {
    let stored = match lines {
        [] => return Ok(()),
        [Line::Setting(stored), ..] => stored,
        _ => {
            return Err(Error::Usage(format!(
                "{} does not begin with its setting: choose another --out",
                path.display()
            )));
        }
    };
    let refuse = |field: &str, now: &str, then: &str| {
        Err(Error::Usage(format!(
            "{}: {field} is {now} now, but it was begun with {then}: leave it as it was, or give another --out",
            path.display()
        )))
    };
    if stored.steps != setting.steps {
        let (now, then) = (setting.steps.to_string(), stored.steps.to_string());
        return refuse("--steps", &now, &then);
    }
    let text = serde_json::to_vec(&setting.config)
        .map_err(|error| Error::io("read", path)(error.into()))?;
    let config = as_read(setting.config.clone(), &text);
    let differing = differing_fields(&stored.config, &config)?;
    if let Some(Difference { field, left, right }) = differing.first() {
        return refuse(field, right, left);
    }
    if stored.data != setting.data {
        let name = |data: &Option<String>| data.clone().unwrap_or_default();
        return refuse("the data", &name(&setting.data), &name(&stored.data));
    }
    Ok(())
}
