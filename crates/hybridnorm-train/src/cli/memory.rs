//! What a run would take of the device's memory, beside what that has.

use core::fmt;

use super::ready::ReadyRun;
use super::request::Request;
use crate::device::{DeviceSpec, memory_for};
use crate::engine::resident_memory;
use crate::error::Error;
use crate::memory::{Memory, Workload, in_words};

/// Copies of the text in the process: the yardsticks' and zstd's.
const TEXTS: u64 = 2;
/// Bytes of a token of text that is tokenized on the spot.
const TOKEN: u64 = 4;
/// What zstd at level 19 takes for its index of a text: so many bytes for each of the text's, and no more than this in all. Measured with
/// texts of 1 to 24 MB.
const INDEX: (u64, u64) = (16, 88 << 20);

/// The memory of a run that is ready to start.
pub(super) struct MemoryPlan {
    workload: Workload,
    memory: Memory,
    device: String,
    /// `None` where nobody tells.
    available: Option<u64>,
    ignored: bool,
}

impl MemoryPlan {
    pub(super) fn of(run: &ReadyRun) -> Result<Self, Error> {
        Self::of_request(&run.request, run)
    }

    /// Of a run with the data of another.
    pub(super) fn of_request(request: &Request, run: &ReadyRun) -> Result<Self, Error> {
        let in_host = |spec: &DeviceSpec| spec.row().in_host_memory;
        let first = &request.device;
        let all = std::iter::once(first).chain(&request.replicas);
        let (sharing, host) = match in_host(first) {
            true => (all.filter(|spec| in_host(spec)).count(), Some(data(run))),
            false => (1, None),
        };
        let devices = 1 + request.replicas.len();
        let workload = Workload::of(&request.config, devices, sharing, host);
        Ok(Self {
            memory: workload.memory()?,
            workload,
            device: first.to_string(),
            available: memory_for(first, resident_memory().unwrap_or(0)),
            ignored: request.ignore_memory,
        })
    }

    /// Bytes that it takes at its peak.
    pub(super) fn bytes(&self) -> u64 {
        self.memory.total()
    }

    /// Refuses so many runs at once where the device cannot hold them. The process is counted once.
    pub(super) fn check_several(&self, runs: usize) -> Result<(), Error> {
        let Some(available) = self.available.filter(|_| !self.ignored) else {
            return Ok(());
        };
        let once = self.memory.process;
        let each = self.bytes().saturating_sub(once);
        let needed = each.saturating_mul(runs as u64).saturating_add(once);
        if needed <= available {
            return Ok(());
        }
        let fit = available.saturating_sub(once) / each.max(1);
        Err(Error::Usage(format!(
            "{runs} runs at once need about {} and {} has {}: {fit} would fit, one for each device that is named; \
             --ignore-memory starts them all the same",
            in_words(needed),
            self.device,
            in_words(available),
        )))
    }

    /// Refuses a run that the device cannot hold.
    pub(super) fn check(&self) -> Result<(), Error> {
        let Some(available) = self.available.filter(|_| !self.ignored) else {
            return Ok(());
        };
        match self.workload.too_large(available, &self.device)? {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

/// Bytes that the process holds now.
pub(super) fn resident() -> u64 {
    resident_memory().unwrap_or(0)
}

/// Bytes of text and tokens in memory. Prepared data is read piece by piece.
fn data(run: &ReadyRun) -> u64 {
    let text: u64 = run.texts.iter().map(|text| text.len() as u64).sum();
    let tokens = match run.request.sources {
        Some(_) => 0,
        None => run.data.train.tokens + run.data.validation.tokens,
    };
    let (each, most) = INDEX;
    TEXTS * text + TOKEN * tokens + (each * text).min(most)
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "memory    about {}", in_words(self.memory.total()))?;
        for (name, bytes) in self.memory.components() {
            if bytes > 0 {
                writeln!(f, "          {:>10}  {name}", in_words(bytes))?;
            }
        }
        let device = &self.device;
        match self.available {
            Some(available) => writeln!(
                f,
                "          {:>10}  is what {device} has",
                in_words(available)
            ),
            None => writeln!(f, "             unknown  what {device} has"),
        }
    }
}
