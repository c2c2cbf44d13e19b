//! `train`: the main job.

use std::io::Write;

use burn::tensor::Device;
use burn::train::Interrupter;

use super::contents::draw;
use super::flags::RunFlags;
use super::memory::MemoryPlan;
use super::plan::Plan;
use super::ready::ReadyRun;
use super::results::{self, Results};
use crate::data::Validation;
use crate::device::DeviceSpec;
use crate::engine::{
    Console, Evaluate, Evaluation, EvaluationScope, TrainRequest, interrupt_on_signals, train,
};
use crate::error::Error;
use crate::eval::perplexity::{Score, score};
use crate::eval::yardstick::{zstd_alone, zstd_primed};
use crate::mfu::Utilization;
use crate::run::RunConfig;

pub(super) fn run(flags: &RunFlags, out: &mut impl Write) -> Result<(), Error> {
    let mut prepared = ReadyRun::new(flags)?;
    let device = prepared.request.device.open()?;
    let replicas = prepared.request.replicas.iter().map(DeviceSpec::open);
    let replicas = replicas.collect::<Result<_, _>>()?;
    let console = match prepared.request.tui {
        true => Console::tui()?,
        false => Console::stderr(),
    };
    let memory = MemoryPlan::of(&prepared)?;
    write!(out, "{}{memory}", Plan(&prepared)).map_err(Error::Output)?;
    memory.check()?;
    let utilization = Utilization::of(&prepared.request.config, &device)?;
    if let Some(utilization) = utilization {
        writeln!(out, "mfu       {utilization}").map_err(Error::Output)?;
    }
    writeln!(out).map_err(Error::Output)?;

    let interrupter = Interrupter::new();
    interrupt_on_signals(&interrupter)?;
    let config = prepared.request.config.clone();
    let steps = config.training.steps;
    let run = prepared.request.out.clone();
    // Indexing the training text takes zstd some seconds: beside the training, not after it.
    let [train_text, text] = std::mem::take(&mut prepared.texts);
    let compressor = std::thread::spawn(move || {
        Ok::<_, Error>((zstd_alone(&text)?, zstd_primed(&[train_text], &text)?))
    });
    let summary = train(TrainRequest {
        evaluate: Some(evaluator(&prepared, &config, &device)),
        config,
        run_dir: run.clone(),
        device,
        replicas,
        resume: prepared.request.resume,
        allow: prepared.request.allow.clone(),
        max_time: prepared.request.max_time,
        batches: prepared.batches.clone(),
        interrupter,
        console,
        tensorboard: prepared.request.tensorboard,
        utilization,
    })?;
    let step = summary.steps;
    if summary.out_of_time {
        return Err(Error::OutOfTime { step, steps, run });
    }
    if summary.interrupted {
        return Err(Error::Interrupted { step, steps, run });
    }
    let sample = results::sample(&prepared, &summary)?;
    let zstd = compressor
        .join()
        .map_err(|_| Error::Panicked("the zstd yardstick"))??;
    let results = Results::new(&prepared, &summary, zstd, sample)?;
    results.save(&run)?;
    draw(&run);
    write!(out, "{results}").map_err(Error::Output)
}

/// Scores the model on the windows that the scope asks for.
pub(super) fn evaluator(prepared: &ReadyRun, config: &RunConfig, device: &Device) -> Evaluate {
    let (interval, last) = (prepared.interval.clone(), prepared.last.clone());
    let (rows, stages) = (config.training.micro_batch, config.training.stages());
    let device = device.clone();
    let end = prepared.batches.end_of_document();
    let mask = end.filter(|_| config.data.document_mask);
    Box::new(move |model, scope| {
        let windows: &Validation = match scope {
            EvaluationScope::Interval => &interval,
            EvaluationScope::Final => &last,
        };
        let score: Score = score(&model.decoder, windows, rows, mask, stages, &device)?;
        Ok(Evaluation {
            nats_per_token: score.loss(),
            bits_per_byte: score.bits_per_byte(),
        })
    })
}
