//! TensorBoard event files: scalars only.
//!
//! A file is a row of TFRecords (`tensorflow/core/lib/io/record_writer.h`), each an `Event` (`tensorflow/core/util/event.proto`) with
//! `Summary.Value.simple_value` (`tensorflow/core/framework/summary.proto`). Written here, in a hundred lines: `tensorboard-rs` has
//! rested since 2022 and brings `image` and a generated protobuf library; `tfrecord` brings a serialisation framework.
//!
//! Every process of a run writes a file of its own. Its second event says at which step it starts, and TensorBoard drops what an
//! earlier file, of a process that was killed, has of that step and later; a run that goes back says so likewise. No step is
//! shown twice.

mod protobuf;
mod scalars;
mod tfrecord;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use self::protobuf::{Message, Scalar};
use super::log::Record;

/// The folder in a run directory.
pub(super) const TENSORBOARD: &str = "tensorboard";

/// An open event file.
#[derive(Debug)]
pub(super) struct EventFile {
    path: PathBuf,
    out: BufWriter<File>,
}

impl EventFile {
    /// Begins a file in `dir`, which is created, for a process that stands at `step`.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(dir: &Path, step: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let now = now();
        // TensorBoard reads files in the order of their names.
        let name = format!(
            "events.out.tfevents.{now:017.6}.hybridnorm.{}",
            std::process::id()
        );
        let path = dir.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)?;
        let mut file = Self {
            path,
            out: BufWriter::new(file),
        };
        file.event(&protobuf::file_version(now))?;
        file.restart(step)?;
        Ok(file)
    }

    /// Whatever stands in the folder of steps after `step` is to be forgotten.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn restart(&mut self, step: u64) -> io::Result<()> {
        self.event(&protobuf::session_start(now(), step + 1))?;
        self.out.flush()
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the figures of `record`, if it has any, for TensorBoard to see at once.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let scalars = scalars::scalars(record);
        if scalars.is_empty() {
            return Ok(());
        }
        let scalars: Vec<Scalar> = scalars
            .iter()
            .map(|(tag, value)| Scalar {
                tag,
                value: *value as f32,
            })
            .collect();
        self.event(&protobuf::scalars(now(), record.step(), &scalars))?;
        self.out.flush()
    }

    fn event(&mut self, event: &Message) -> io::Result<()> {
        tfrecord::write(&mut self.out, event.bytes())
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}
