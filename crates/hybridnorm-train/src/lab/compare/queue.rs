//! Runs in line for devices.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::device::DeviceSpec;

/// A run in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Its arm's place.
    pub arm: usize,
    /// Its seed's.
    pub seed: usize,
}

/// Gives each device a run at a time until none is left, or `run` fails or returns false: what is running then goes on to its end,
/// nothing new is begun.
///
/// # Errors
/// The first error of `run`.
pub fn run_all<E: Send>(
    jobs: &[Job],
    devices: &[DeviceSpec],
    run: impl Fn(Job, &DeviceSpec) -> Result<bool, E> + Sync,
) -> Result<(), E> {
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let failed: Mutex<Option<E>> = Mutex::new(None);
    let work = |device: &DeviceSpec| {
        while !ended.load(Ordering::SeqCst)
            && let Some(job) = jobs.get(next.fetch_add(1, Ordering::SeqCst))
        {
            let goes_on = run(*job, device).unwrap_or_else(|error| {
                let mut failed = failed.lock().unwrap_or_else(|poison| poison.into_inner());
                failed.get_or_insert(error);
                false
            });
            if !goes_on {
                ended.store(true, Ordering::SeqCst);
            }
        }
    };
    std::thread::scope(|scope| {
        for device in devices {
            let work = &work;
            scope.spawn(move || work(device));
        }
    });
    let failed = failed.into_inner();
    match failed.unwrap_or_else(|poison| poison.into_inner()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(n: usize) -> Vec<Job> {
        (0..n).map(|arm| Job { arm, seed: 0 }).collect()
    }

    #[test]
    fn every_run_is_run_once() {
        let devices = ["flex", "flex"].map(|name| name.parse().unwrap());
        let seen = Mutex::new(Vec::new());
        let run = |job: Job, _: &DeviceSpec| {
            seen.lock().unwrap().push(job.arm);
            Ok::<_, ()>(true)
        };
        run_all(&jobs(20), &devices, run).unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let devices = ["flex".parse().unwrap()];
        let run = |job: Job, _: &DeviceSpec| match job.arm {
            3 => Err("full disk"),
            arm => {
                assert!(arm < 3, "{arm} was begun after the failure");
                Ok(true)
            }
        };
        assert_eq!(run_all(&jobs(20), &devices, run), Err("full disk"));
        let stop = |job: Job, _: &DeviceSpec| Ok::<_, ()>(job.arm < 2);
        assert_eq!(run_all(&jobs(20), &devices, stop), Ok(()));
    }
}
