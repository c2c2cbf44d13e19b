//! The step loop, as a strategy of Burn's learner.
//!
//! Burn's own strategies work by epoch and keep the optimiser's state to themselves. This one counts steps, owns the
//! optimiser, and leaves metrics, renderer and interruption to the learner.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use hybridnorm_moe::{ModelConfig, RouterHealth};

use super::Evaluate;
use super::console::Console;
use super::diagnostics::{Diagnostics, Observed};
use super::error::TrainError;
use super::guarding::Judged;
use super::loader::BatchSource;
use super::log::{MetricsLog, Record};
use super::metrics::{Evaluation, StepRecord};
use super::model::{LanguageModel, Output, TokenBatch};
use super::replicas::Replicas;
use super::routers::{RouterEvent, RouterRecord, RouterWatch};
use super::run_dir::RunDir;
use super::step::{StepFigures, StepGradients};
use super::tasks::Exam;
use crate::amount::Amount;
use crate::guard::{GuardConfig, GuardState};
use crate::mfu::Utilization;
use crate::recipe::{Clip, Movement, Optimizer, OptimizerConfig, Schedule, UpdateRatios};
use crate::run::TrainingConfig;

pub(super) type Events = SupervisedTrainingEventProcessor<LanguageModel>;

/// Everything a run owns beside its model.
pub(super) struct Session {
    pub training: TrainingConfig,
    pub schedule: Schedule,
    pub clip: Clip,
    pub optimizer: Optimizer,
    /// What the optimiser and the model are made from, to begin again.
    pub recipe: OptimizerConfig,
    pub model: ModelConfig,
    pub utilization: Option<Utilization>,
    pub guard: GuardConfig,
    pub guard_state: GuardState,
    pub run: RunDir,
    pub log: MetricsLog,
    pub watch: RouterWatch,
    pub source: Arc<dyn BatchSource>,
    pub data: Option<String>,
    pub evaluate: Option<Evaluate>,
    /// Questions that the model is asked, if any.
    pub exam: Option<Exam>,
    pub console: Console,
    /// The devices beside the one that the model is on.
    pub replicas: Replicas,
    /// When to stop, if ever.
    pub ends: Option<Instant>,
    /// The step this process began at, where its data loader begins.
    pub first: u64,
    /// Where the run stands.
    pub at: Position,
}

/// Where a run stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Position {
    /// Steps done.
    pub step: u64,
    /// Seconds of training before this process.
    pub elapsed_before: f64,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
    /// The step of the last checkpoint that this process wrote.
    pub saved: Option<u64>,
    /// Whether the time is up.
    pub out_of_time: bool,
}

/// The strategy: runs one session, once.
pub(super) struct StepLoop {
    session: Mutex<Option<Session>>,
    outcome: Mutex<Option<Result<Session, TrainError>>>,
}

impl StepLoop {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session: Mutex::new(Some(session)),
            outcome: Mutex::new(None),
        }
    }

    /// The session after the run, or why it failed; `None` if the learner never ran it.
    pub(super) fn outcome(&self) -> Option<Result<Session, TrainError>> {
        take(&self.outcome)
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl SupervisedLearningStrategy<LanguageModel> for StepLoop {
    fn fit(
        &self,
        components: TrainingComponents<LanguageModel>,
        learner: Learner<LanguageModel>,
        train: TrainLoader<LanguageModel>,
        _valid: ValidLoader<LanguageModel>,
        _starting_epoch: usize,
    ) -> (LanguageModel, Events) {
        let model = learner.model();
        // The learner's handle on the weights would force copies.
        drop(learner);
        let mut events = components.event_processor;
        let Some(mut session) = take(&self.session) else {
            return (model, events);
        };
        let (model, result) = session.run(model, &train, &mut events, &components.interrupter);
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(result.map(|()| session));
        (model, events)
    }
}

/// What came of a stretch of steps.
enum Stretch {
    /// The run is over, or was asked to stop.
    Done,
    /// It went back to an earlier step.
    RolledBack,
}

impl Session {
    fn run(
        &mut self,
        mut model: LanguageModel,
        train: &TrainLoader<LanguageModel>,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> (LanguageModel, Result<(), TrainError>) {
        let steps = self.training.steps;
        interrupter.fail_on_error(events.process_train(LearnerEvent::StartSplit {
            epoch_number: 1,
            total_items: steps as usize,
        }));
        let caught_up = self.catch_up(&model, events, interrupter);
        if caught_up.is_err() || self.at.step >= steps {
            interrupter.fail_on_error(events.process_train(LearnerEvent::EndSplit(1)));
            return (model, caught_up);
        }
        let started = Instant::now();
        loop {
            let done = self.at.step.saturating_sub(self.first) as usize;
            let rest = train.slice(done * self.training.accumulation(), train.num_items());
            let stretch;
            (model, stretch) = self.stretch(model, &mut *rest.iter(), started, events, interrupter);
            match stretch {
                Ok(Stretch::RolledBack) => {}
                Ok(Stretch::Done) => break,
                Err(error) => return (model, Err(error)),
            }
        }
        interrupter.fail_on_error(events.process_train(LearnerEvent::EndSplit(1)));
        (model, Ok(()))
    }

    /// Steps until the run ends, is stopped or goes back.
    fn stretch(
        &mut self,
        mut model: LanguageModel,
        batches: &mut dyn DataLoaderIterator<TokenBatch>,
        started: Instant,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> (LanguageModel, Result<Stretch, TrainError>) {
        let mut stopping = interrupter.should_stop();
        while self.at.step < self.training.steps && !stopping {
            let step_started = Instant::now();
            let step = self.at.step + 1;
            let gradients = match self.gradients(&model, batches, step) {
                Ok(Judged::Good(gradients)) => Some(gradients),
                Ok(Judged::Skipped) => None,
                Ok(Judged::RollBack(reason)) => {
                    let back;
                    (model, back) = self.roll_back(model, step, reason);
                    return (model, back.map(|()| Stretch::RolledBack));
                }
                Err(error) => return (model, Err(error)),
            };
            let tokens = step * self.training.tokens_per_step();
            let mut figures = None;
            let (mut observed, mut aside) = (None, Duration::ZERO);
            if let Some(gradients) = gradients {
                let lr = self.schedule.at(tokens);
                let found = gradients.figures.clone();
                if self.is_diagnosed(step) {
                    match Observed::new(
                        &model,
                        &gradients,
                        self.training.diagnostics_sequences,
                        step,
                    ) {
                        Ok(seen) => (aside, observed) = (seen.time, Some(seen)),
                        Err(error) => return (model, Err(error)),
                    }
                }
                let movement;
                (model, movement) = self.apply(model, *gradients, lr, step);
                match movement {
                    Ok(movement) => {
                        let ratios = self.is_due(self.training.update_ratio_every, step);
                        let ratios = match ratios {
                            true => movement.ratios(),
                            false => UpdateRatios::new(),
                        };
                        observed = observed.map(|seen: Observed| seen.with_movement(movement));
                        figures = Some((found, lr, ratios));
                    }
                    Err(error) => return (model, Err(error)),
                }
            }
            let seconds = step_started.elapsed().saturating_sub(aside).as_secs_f64();
            let elapsed_s = self.at.elapsed_before + started.elapsed().as_secs_f64();
            let record = figures.map(|(figures, lr, update_ratios)| {
                let StepFigures {
                    loss,
                    balance_loss,
                    router_z_loss,
                    norm: grad_norm,
                    routers,
                    ..
                } = figures;
                let with_load =
                    step == self.training.steps || self.is_due(self.training.eval_every, step);
                let tokens_per_s = self.training.tokens_per_step() as f64 / seconds;
                let peak = self.utilization.map(|utilization| utilization.peak);
                let record = StepRecord {
                    step,
                    tokens,
                    loss,
                    balance_loss,
                    router_z_loss,
                    lr,
                    grad_norm,
                    tokens_per_s,
                    mfu: self.utilization.map(|of| of.at(tokens_per_s)),
                    peak_tflops: peak.map(|peak| peak.tflops),
                    peak_measured: peak.is_some_and(|peak| peak.measured),
                    update_ratios,
                    elapsed_s,
                    routers: RouterRecord::of(&routers, with_load),
                };
                (record, routers)
            });
            let told = record.map_or(Ok(()), |(record, routers)| {
                self.log.write(&Record::Step(record.clone()))?;
                if let Some(seen) = observed {
                    let diagnostics = Diagnostics::new(step, tokens, seen);
                    self.log
                        .write(&Record::Diagnostics(Box::new(diagnostics)))?;
                }
                self.watch(step, &routers)?;
                self.tell(record, events, interrupter);
                Ok(())
            });
            self.at.step = step;
            let after =
                told.and_then(|()| self.after_step(&model, tokens, elapsed_s, events, interrupter));
            match after {
                Ok(stop) => stopping = stop,
                Err(error) => return (model, Err(error)),
            }
        }
        (model, Ok(Stretch::Done))
    }

    /// Takes the step, and measures it where that is due.
    fn apply(
        &mut self,
        model: LanguageModel,
        gradients: StepGradients,
        lr: f64,
        step: u64,
    ) -> (LanguageModel, Result<Movement, TrainError>) {
        let max_norm = self.clip.at(step * self.training.tokens_per_step());
        let measured =
            self.is_diagnosed(step) || self.is_due(self.training.update_ratio_every, step);
        let optimizer = &mut self.optimizer;
        match measured {
            true => gradients.apply_measured(model, optimizer, lr, max_norm, step),
            false => {
                let model = gradients.apply(model, optimizer, lr, max_norm);
                (model, Ok(Movement::default()))
            }
        }
    }

    /// Whether the layers are looked at in `step`: the first, and every so many.
    fn is_diagnosed(&self, step: u64) -> bool {
        let every = self.training.diagnostics_every;
        !every.is_zero() && (step == 1 || self.is_due(every, step))
    }

    /// Whether what is done `every` so much is done after `step`.
    pub(super) fn is_due(&self, every: Amount, step: u64) -> bool {
        every.is_due(step, self.training.tokens_per_step())
    }

    /// Hands the figures of a step to Burn's learner.
    fn tell(&mut self, record: StepRecord, events: &mut Events, interrupter: &Interrupter) {
        let step = record.step;
        let lr = record.lr.into();
        let item = TrainingItem::new(
            Output::Record(record),
            self.progress(step),
            Some(step as usize),
            Some(lr),
        );
        interrupter.fail_on_error(events.process_train(LearnerEvent::ProcessedItem(item)));
    }

    /// Tells of routers that have collapsed or recovered in `step`.
    fn watch(&mut self, step: u64, routers: &[RouterHealth]) -> Result<(), TrainError> {
        for event in self.watch.look(routers) {
            let RouterEvent {
                layer,
                collapsed,
                message,
            } = event;
            let kind = if collapsed { "warning" } else { "note" };
            self.console
                .note(&format!("{kind}: step {step}: {message}"));
            self.log.write(&Record::Router {
                step,
                layer,
                collapsed,
                message,
            })?;
        }
        Ok(())
    }

    pub(super) fn progress(&self, step: u64) -> Progress {
        Progress::new(
            step as usize,
            self.training.steps as usize,
            Some("steps".to_string()),
        )
    }
}
