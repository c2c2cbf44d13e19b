//! Training by steps, inside Burn's learner.
//!
//! [`train`] takes a [`TrainRequest`] and returns a [`TrainSummary`]. The parts:
//!
//! | part | what |
//! |---|---|
//! | [`LanguageModel`] | the decoder with Burn's `TrainStep` and `InferenceStep` |
//! | [`TokenLoader`] | Burn's `DataLoader` over a [`BatchSource`], a pure function of the step |
//! | the strategy | Burn's `SupervisedLearningStrategy`: accumulation, clipping, schedule, evaluation, checkpoints |
//! | learner | Burn's learner with this program's metrics and nothing else |
//! | replicas | data-parallel devices, each with an equal part of every step's micro-batches |
//! | [`Console`] | Burn's `MetricsRenderer`: a live bar or plain lines |
//! | [`MetricsLog`] | `metrics.jsonl` |
//! | `tensorboard` | the same figures as TensorBoard event files, on request |
//! | [`RouterRecord`] | health of the routers of a sparse model, step by step; warnings when one collapses |
//! | [`RunDir`] | `config.toml`, the lock, what may differ on resume |
//! | [`Diagnostics`] | what each layer does, every so many steps |
//! | guards | what a step must look like to be trained on: [`GuardConfig`](crate::guard::GuardConfig) |

mod between_steps;
mod console;
mod diagnostics;
mod error;
mod guarding;
mod incident;
mod inspect;
mod learner;
mod loader;
mod log;
mod metrics;
mod model;
mod precision;
mod process;
mod replicas;
mod restore;
mod routers;
mod run_dir;
mod signals;
mod stages;
mod step;
mod strategy;
mod tasks;
mod tensorboard;
mod unlogged;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use burn::optim::SgdConfig;
use burn::tensor::Device;
use burn::train::{Interrupter, Learner, LearningResult, TrainingStrategy};
use hybridnorm_core::ConfigError;

pub use console::Console;
pub(crate) use diagnostics::Observed;
pub use diagnostics::{Diagnostics, ForwardFigures, Layers, PartFigures};
pub use error::TrainError;
pub use inspect::{GenerationState, Inspection, LogState};
pub use loader::{BatchSource, LoaderShape, TokenLoader};
pub(crate) use loader::{LoadError, documents};
pub use log::{MetricsLog, Record, read_log};
pub use metrics::{Evaluation, StepRecord};
pub use model::{LanguageModel, MicroBatch, Output, TokenBatch};
pub use precision::Precision;
pub use routers::RouterRecord;
pub use run_dir::{
    CHECKPOINTS, CONFIG, Difference, INCIDENTS, METRICS, RunDir, SUMMARY, changed_mathematics,
    differing_fields, stored_config,
};
pub use signals::interrupt_on_signals;
pub use stages::{Recompute, Stages};
pub(crate) use step::{StepGradients, unreadable};
pub use tasks::TaskRecord;

use crate::mfu::Utilization;
use crate::recipe::Optimizer;
use crate::run::{DataConfig, RunConfig, TrainingConfig};
use crate::stored::Published;
pub(crate) use process::{peak_memory, resident_memory};
pub(crate) use replicas::Replicas;
use routers::RouterWatch;
use strategy::{Position, Session, StepLoop};

/// Measures a model, which has no autodiff, on held-out data.
pub type Evaluate = Box<
    dyn Fn(
            &LanguageModel,
            EvaluationScope,
        ) -> Result<Evaluation, Box<dyn std::error::Error + Send + Sync>>
        + Send,
>;

/// Which of a run's evaluations one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationScope {
    /// One of those during the run.
    Interval,
    /// The one at the end, which may look at more data.
    Final,
}

/// A run to be started or continued.
pub struct TrainRequest {
    /// Everything that decides the run's numbers. To resume, start from [`stored_config`].
    pub config: RunConfig,
    /// The directory that holds, or will hold, everything the run writes.
    pub run_dir: PathBuf,
    /// Where to compute, with or without autodiff.
    pub device: Device,
    /// Further devices, each with a copy of the model and an equal part of every step's micro-batches; none to compute on
    /// `device` alone.
    pub replicas: Vec<Device>,
    /// Whether to continue the run in `run_dir`.
    pub resume: bool,
    /// Fields of the configuration that may differ on resume although they change what is computed, e.g. `schedule.lr`.
    pub allow: Vec<String>,
    /// Ends the run, with a checkpoint, after the step in which this much time has passed.
    pub max_time: Option<Duration>,
    /// The training data.
    pub batches: Arc<dyn BatchSource>,
    /// How to evaluate, if at all.
    pub evaluate: Option<Evaluate>,
    /// Stops the run after the step in progress, with a checkpoint. See [`interrupt_on_signals`].
    pub interrupter: Interrupter,
    /// Where progress is shown.
    pub console: Console,
    /// Whether figures also go to `tensorboard/` in the run directory, as event files.
    pub tensorboard: bool,
    /// What utilisation is measured by, if it is.
    pub utilization: Option<Utilization>,
}

/// A run that ended without an error.
#[derive(Debug)]
pub struct TrainSummary {
    /// Steps done, those before a resume included.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Loss of the last step in nats per token; `None` if this process took no step.
    pub loss: Option<f64>,
    /// The last evaluation in this process.
    pub evaluation: Option<Evaluation>,
    /// Seconds this process has trained, evaluated and saved.
    pub elapsed_s: f64,
    /// The step this process continued from.
    pub resumed_from: Option<u64>,
    /// Whether it was stopped before its last step.
    pub interrupted: bool,
    /// Whether it was `max_time` that stopped it.
    pub out_of_time: bool,
    /// Steps that were not trained on because they went wrong, those before a resume included.
    pub refused: Vec<u64>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// Most memory this process ever held, in bytes, where the system tells (Linux).
    pub peak_memory: Option<u64>,
    /// The trained model, without autodiff.
    pub model: LanguageModel,
}

/// The id that a mask of documents goes by, where one is asked for.
pub(crate) fn document_mask(
    data: &DataConfig,
    source: &dyn BatchSource,
) -> Result<Option<u32>, ConfigError> {
    match (data.document_mask, source.end_of_document()) {
        (false, _) => Ok(None),
        (true, Some(end)) => Ok(Some(end)),
        (true, None) => {
            let allowed = "false for data whose end of a document is not known";
            Err(ConfigError::new("data.document_mask", true, allowed))
        }
    }
}

/// Trains as requested. A failed run leaves its directory resumable from its newest checkpoint.
///
/// # Errors
/// Every way a configuration, a file, the data or the device can end a run: see [`TrainError`].
pub fn train(request: TrainRequest) -> Result<TrainSummary, TrainError> {
    let started = std::time::Instant::now();
    let TrainRequest {
        config,
        run_dir,
        device,
        replicas,
        resume,
        allow,
        max_time,
        batches,
        evaluate,
        interrupter,
        console,
        tensorboard,
        utilization,
    } = request;
    config.validate()?;
    divide(&config, 1 + replicas.len())?;
    let published = Published::of_run(&run_dir)?;
    let exam = tasks::Exam::of(&config, published.as_ref())?;
    let device = with_autodiff(device);
    let replicas: Vec<Device> = replicas.into_iter().map(with_autodiff).collect();
    for device in std::iter::once(&device).chain(&replicas) {
        config.training.precision.check(device)?;
    }
    let replicas = Replicas::new(&device, &replicas)?;
    let model = LanguageModel::new(&config.model_config(), &device)?;
    let mut model = model.with_stages(config.training.stages());
    let mut optimizer = Optimizer::new(config.optimizer.clone(), &model);
    let data = batches.identity();
    let mut position = None;
    let (run, changes) = if resume {
        let (mut run, changes) = RunDir::resume(&run_dir, &config, &allow)?;
        let store = run.checkpoints();
        (model, position) =
            restore::newest(&store, model, &mut optimizer, data.as_deref(), &console)?;
        run.keep_config()?;
        console.note(&match &position {
            Some((
                Position {
                    checkpoint: Some(dir),
                    ..
                },
                _,
            )) => format!("resuming from {}", dir.display()),
            _ => "resuming from the start: no checkpoint was written yet".to_string(),
        });
        (run, changes)
    } else {
        (RunDir::create(&run_dir, &config)?, Vec::new())
    };
    let (at, mut guard_state) = position.unwrap_or_default();
    let mut log = MetricsLog::open(&run.metrics(), at.step)?;
    // The run may have gone back to this checkpoint, and been killed before it wrote another.
    for refused in log.rolled_back() {
        guard_state.refuse(*refused);
    }
    let first = at.step;
    if tensorboard {
        log.copy_to_tensorboard(&run.tensorboard(), first)?;
    }
    for Difference { field, left, right } in changes {
        console.note(&format!("{field} is {right} from here on; it was {left}"));
        log.write(&Record::Change {
            step: first,
            field,
            from: left,
            to: right,
        })?;
    }

    let shape = LoaderShape {
        batch: config.training.batch,
        micro_batch: config.training.micro_batch,
        seq: config.training.seq,
        vocab: config.model.padded_vocab_size,
        noise_seed: config.training.seed,
        document_mask: document_mask(&config.data, &*batches)?,
    };
    let steps = config.training.steps;
    let loader = |steps| TokenLoader::new(batches.clone(), shape, steps, device.clone());
    let (train, nothing) = (Arc::new(loader(first..steps)), Arc::new(loader(0..0)));
    let watch = RouterWatch::new(log.collapsed().clone());
    let sparse = model.is_sparse();
    let strategy = Arc::new(StepLoop::new(Session {
        schedule: config.schedule(),
        clip: config.optimizer.clip(),
        recipe: config.optimizer.clone(),
        model: config.model_config(),
        utilization,
        guard: config.guard,
        guard_state,
        training: config.training,
        source: batches.clone(),
        replicas,
        ends: max_time.and_then(|time| started.checked_add(time)),
        optimizer,
        run,
        log,
        watch,
        data,
        evaluate,
        exam,
        console: console.clone(),
        first,
        at,
    }));
    let renderer = console.renderer(&interrupter);
    let learning = learner::new(&run_dir, train, nothing, &interrupter, renderer)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()));
    let learning = learner::with_optional_metrics(learning, sparse, utilization);
    // The learner insists on an optimiser and a schedule; the strategy has its own.
    let LearningResult { model, error, .. } =
        learning.launch(Learner::new(model, SgdConfig::new().init(), 0.0));
    console.release();

    let session = match (strategy.outcome(), error) {
        (Some(Ok(session)), None) => session,
        (Some(Err(error)), _) => return Err(error),
        (_, Some(error)) => return Err(TrainError::Learner(error)),
        (None, None) => return Err(TrainError::NeverRan),
    };
    let at = session.at;
    Ok(TrainSummary {
        steps: at.step,
        tokens: at.step * session.training.tokens_per_step(),
        loss: session.log.loss(),
        evaluation: at.evaluation,
        elapsed_s: started.elapsed().as_secs_f64(),
        resumed_from: resume.then_some(first),
        interrupted: at.step < steps,
        out_of_time: at.out_of_time,
        refused: session.guard_state.refused().to_vec(),
        checkpoint: at.checkpoint,
        peak_memory: peak_memory(),
        model,
    })
}

fn with_autodiff(device: Device) -> Device {
    match device.is_autodiff() {
        true => device,
        false => device.autodiff(),
    }
}

/// Refuses so many devices where they would not all have as much to do.
fn divide(config: &RunConfig, devices: usize) -> Result<(), ConfigError> {
    let TrainingConfig {
        batch, micro_batch, ..
    } = config.training;
    let micro_batches = config.training.accumulation();
    if micro_batches.is_multiple_of(devices) {
        return Ok(());
    }
    let allowed = format!(
        "a divisor of the {micro_batches} micro-batches of a step (training.batch = {batch}, training.micro_batch = {micro_batch}): \
         batch = micro-batch · accumulation · devices"
    );
    Err(ConfigError::new("devices", devices, allowed))
}
