//! Data-parallel training: a copy of the model on every device, each with an equal part of a step's micro-batches.
//!
//! The parts are contiguous, and their sums are added on the main device in the order of the devices, whichever is done first: a run
//! repeats bit for bit. With one micro-batch for each device, that is the order in which one device accumulates them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use burn::module::Module;
use burn::tensor::Device;

use super::error::TrainError;
use super::model::{LanguageModel, TokenBatch};
use super::step::Share;

/// The devices of a run beside the one that holds the weights and takes the optimiser's step.
#[derive(Default)]
pub(crate) struct Replicas(Vec<Replica>);

/// A device, and the thread that works for it: Burn queues what a device has to do by thread.
struct Replica {
    /// Its place among the devices of the run, counted from 1; the main one is the first.
    place: usize,
    parts: Sender<Part>,
    shares: Receiver<Result<Share, TrainError>>,
}

/// What a device has to do in a step.
struct Part {
    model: LanguageModel,
    batches: Vec<TokenBatch>,
    step: u64,
    /// Micro-batches of the step that come before these.
    before: usize,
}

impl Replicas {
    /// Threads that compute on `devices` and bring what they get to `main`.
    ///
    /// # Errors
    /// When the system has no more threads.
    pub fn new(main: &Device, devices: &[Device]) -> Result<Self, TrainError> {
        let places = 2..;
        let replicas = places
            .zip(devices)
            .map(|(place, device)| Replica::start(place, device.clone(), main.clone()));
        replicas.collect::<Result<_, _>>().map(Self)
    }

    /// Forward and backward passes over the micro-batches of a step, of which every device gets as many.
    pub(super) fn share(
        &self,
        model: &LanguageModel,
        micro_batches: impl Iterator<Item = Result<TokenBatch, TrainError>>,
        step: u64,
    ) -> Result<Share, TrainError> {
        if self.0.is_empty() {
            return Share::of(model, micro_batches, step, 0);
        }
        let mut own: Vec<TokenBatch> = micro_batches.collect::<Result<_, _>>()?;
        let size = own.len().div_ceil(self.0.len() + 1);
        let mut rest = own.split_off(size.min(own.len())).into_iter();
        for (replica, index) in self.0.iter().zip(1..) {
            replica.begin(Part {
                model: model.clone(),
                batches: rest.by_ref().take(size).collect(),
                step,
                before: index * size,
            })?;
        }
        let own = Share::of(model, own.into_iter().map(Ok), step, 0);
        // Every answer is waited for, even after a failure: one left behind would be taken for the next step's.
        let others: Vec<_> = self.0.iter().map(|replica| replica.end(step)).collect();
        others.into_iter().try_fold(own?, |mut sum, share| {
            sum.add(model, share?);
            Ok(sum)
        })
    }
}

impl Replica {
    fn start(place: usize, device: Device, main: Device) -> Result<Self, TrainError> {
        let (parts, todo) = channel::<Part>();
        let (done, shares) = channel();
        let work = move || {
            for part in todo {
                let step = part.step;
                let share = catch_unwind(AssertUnwindSafe(|| part.compute(&device, &main)));
                let share = share.unwrap_or_else(|panic| Err(failed(place, step, &said(&*panic))));
                if done.send(share).is_err() {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name(format!("device {place}"));
        thread
            .spawn(work)
            .map_err(|error| failed(place, 0, &error.to_string()))?;
        Ok(Self {
            place,
            parts,
            shares,
        })
    }

    fn begin(&self, part: Part) -> Result<(), TrainError> {
        let step = part.step;
        let sent = self.parts.send(part);
        sent.map_err(|_| failed(self.place, step, ENDED))
    }

    fn end(&self, step: u64) -> Result<Share, TrainError> {
        let share = self.shares.recv();
        share.unwrap_or_else(|_| Err(failed(self.place, step, ENDED)))
    }
}

impl Part {
    fn compute(self, device: &Device, main: &Device) -> Result<Share, TrainError> {
        let model = self.model.fork(device);
        let batches = self.batches.into_iter();
        let batches = batches.map(|batch| Ok(batch.moved_to(device)));
        let share = Share::of(&model, batches, self.step, self.before)?;
        Ok(share.gradients_to(main, &model))
    }
}

const ENDED: &str = "its thread has ended";

fn failed(device: usize, step: u64, reason: &str) -> TrainError {
    TrainError::Replica {
        device,
        step,
        reason: reason.to_string(),
    }
}

/// What a panic said, on one line.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("the message stands above");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
