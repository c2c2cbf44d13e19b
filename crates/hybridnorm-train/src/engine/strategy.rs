//! The step loop, as a strategy of Burn's learner.
//!
//! Burn's own strategies work by epoch and keep the optimiser's state to themselves. This one counts steps, owns the
//! optimiser, and leaves metrics, renderer and interruption to the learner.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::module::Module;
use burn::train::{
    EventProcessorTraining, Interrupter, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};
use hybridnorm_moe::RouterHealth;

use super::console::Console;
use super::error::TrainError;
use super::log::{MetricsLog, Record};
use super::metrics::{Evaluation, StepRecord};
use super::model::{LanguageModel, Output, TokenBatch};
use super::routers::{RouterEvent, RouterRecord, RouterWatch};
use super::run_dir::RunDir;
use super::step::{StepFigures, StepGradients, finite};
use super::{Evaluate, EvaluationScope};
use crate::checkpoint::{FORMAT, Snapshot, TrainingState};
use crate::recipe::{AdamW, Schedule};
use crate::run::TrainingConfig;

type Events = SupervisedTrainingEventProcessor<LanguageModel>;

/// Everything a run owns beside its model.
pub(super) struct Session {
    pub training: TrainingConfig,
    pub schedule: Schedule,
    pub max_grad_norm: f64,
    pub optimizer: AdamW,
    pub run: RunDir,
    pub log: MetricsLog,
    pub watch: RouterWatch,
    pub data: Option<String>,
    pub evaluate: Option<Evaluate>,
    pub console: Console,
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
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// The last evaluation.
    pub evaluation: Option<Evaluation>,
    /// The newest checkpoint.
    pub checkpoint: Option<PathBuf>,
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
        let (model, result) = session.run(
            model,
            &mut *train.iter(),
            &mut events,
            &components.interrupter,
        );
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(result.map(|()| session));
        (model, events)
    }
}

/// Whether what is done `every` so many steps is done after `step`.
fn due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

impl Session {
    fn run(
        &mut self,
        mut model: LanguageModel,
        batches: &mut dyn DataLoaderIterator<TokenBatch>,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> (LanguageModel, Result<(), TrainError>) {
        let started = Instant::now();
        let steps = self.training.steps;
        interrupter.fail_on_error(events.process_train(LearnerEvent::StartSplit {
            epoch_number: 1,
            total_items: steps as usize,
        }));
        if self.at.step >= steps {
            let result = self.evaluate_again(&model, events, interrupter);
            return (model, result);
        }
        let mut stopping = interrupter.should_stop();
        while self.at.step < steps && !stopping {
            let step_started = Instant::now();
            let step = self.at.step + 1;
            let gradients = match self.gradients(&model, batches, step) {
                Ok(gradients) => gradients,
                Err(error) => return (model, Err(error)),
            };
            let tokens = step * self.training.tokens_per_step();
            let lr = self.schedule.at(tokens);
            let figures = gradients.figures.clone();
            model = gradients.apply(model, &mut self.optimizer, lr, self.max_grad_norm);
            let seconds = step_started.elapsed().as_secs_f64();
            let StepFigures {
                loss,
                balance_loss,
                router_z_loss,
                norm: grad_norm,
                routers,
            } = figures;
            let with_load = step == steps || due(self.training.eval_every, step);
            let record = StepRecord {
                step,
                tokens,
                loss,
                balance_loss,
                router_z_loss,
                lr,
                grad_norm,
                tokens_per_s: self.training.tokens_per_step() as f64 / seconds,
                elapsed_s: self.at.elapsed_before + started.elapsed().as_secs_f64(),
                routers: RouterRecord::of(&routers, with_load),
            };
            let watched = self.log.write(&Record::Step(record.clone()));
            let watched = watched.and_then(|()| self.watch(step, &routers));
            let after = watched.and_then(|()| self.after_step(&model, record, events, interrupter));
            match after {
                Ok(stop) => stopping = stop,
                Err(error) => return (model, Err(error)),
            }
        }
        interrupter.fail_on_error(events.process_train(LearnerEvent::EndSplit(1)));
        (model, Ok(()))
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

    /// Forward and backward passes over the micro-batches of `step`. The weights are not touched.
    fn gradients(
        &self,
        model: &LanguageModel,
        batches: &mut dyn DataLoaderIterator<TokenBatch>,
        step: u64,
    ) -> Result<StepGradients, TrainError> {
        let wrong = |problem: String| TrainError::Batch { step, problem };
        let micro_batches = (0..self.training.accumulation()).map(|_| match batches.next() {
            Some(batch) => batch.map_err(|error| wrong(error.to_string())),
            None => Err(wrong("the loader ended".to_string())),
        });
        StepGradients::of(model, micro_batches, step)
    }

    /// Reports, evaluates and saves as configured. True if the run is to stop here.
    fn after_step(
        &mut self,
        model: &LanguageModel,
        record: StepRecord,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<bool, TrainError> {
        let StepRecord { step, tokens, .. } = record;
        self.at.step = step;
        self.at.loss = Some(record.loss);
        let elapsed_s = record.elapsed_s;
        let lr = record.lr.into();
        let item = TrainingItem::new(
            Output::Record(record),
            self.progress(),
            Some(step as usize),
            Some(lr),
        );
        interrupter.fail_on_error(events.process_train(LearnerEvent::ProcessedItem(item)));

        let last = step == self.training.steps;
        // A stop asked for after this line is seen after the next step.
        let stopping = interrupter.should_stop();
        if last {
            // What has been trained is safe before anything else may fail.
            interrupter.fail_on_error(events.flush());
            self.save(model, tokens, elapsed_s)?;
        }
        if last || (due(self.training.eval_every, step) && !stopping) {
            let scope = if last {
                EvaluationScope::Final
            } else {
                EvaluationScope::Interval
            };
            if let Some(evaluation) = self.evaluate(model, scope, events, interrupter)? {
                self.log.write(&Record::Evaluation {
                    step,
                    tokens,
                    evaluation,
                })?;
            }
        }
        if let Some(error) = interrupter.error() {
            return Err(TrainError::Learner(error));
        }
        if last {
            self.log.sync()?;
        } else if stopping || due(self.training.checkpoint_every, step) {
            interrupter.fail_on_error(events.flush());
            self.save(model, tokens, elapsed_s)?;
        }
        Ok(stopping)
    }

    fn progress(&self) -> Progress {
        Progress::new(
            self.at.step as usize,
            self.training.steps as usize,
            Some("steps".to_string()),
        )
    }

    fn evaluate(
        &mut self,
        model: &LanguageModel,
        scope: EvaluationScope,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<Option<Evaluation>, TrainError> {
        let Some(evaluate) = &self.evaluate else {
            return Ok(None);
        };
        let step = self.at.step;
        let evaluation = evaluate(&model.valid(), scope)
            .map_err(|source| TrainError::Evaluation { step, source })?;
        for (what, value) in [
            ("validation loss", evaluation.nats_per_token),
            ("validation bits per byte", evaluation.bits_per_byte),
        ] {
            finite(what, value, step)?;
        }
        self.at.evaluation = Some(evaluation);
        let item = TrainingItem::new(
            Output::Record(evaluation),
            self.progress(),
            Some(step as usize),
            None,
        );
        for event in [
            LearnerEvent::StartSplit {
                epoch_number: 1,
                total_items: 1,
            },
            LearnerEvent::ProcessedItem(item),
            LearnerEvent::EndSplit(1),
        ] {
            interrupter.fail_on_error(events.process_valid(event));
        }
        Ok(Some(evaluation))
    }

    /// A run that was complete already: its last figures once more, nothing written.
    fn evaluate_again(
        &mut self,
        model: &LanguageModel,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<(), TrainError> {
        self.evaluate(model, EvaluationScope::Final, events, interrupter)?;
        interrupter.fail_on_error(events.process_train(LearnerEvent::EndSplit(1)));
        Ok(())
    }

    fn save(
        &mut self,
        model: &LanguageModel,
        tokens: u64,
        elapsed_s: f64,
    ) -> Result<(), TrainError> {
        self.log.sync()?;
        let config = self.run.config();
        let state = TrainingState {
            format: FORMAT,
            step: self.at.step,
            tokens,
            optimizer_steps: self.optimizer.steps(),
            elapsed_s,
            config_blake3: blake3::hash(config.as_bytes()).to_hex().to_string(),
            data: self.data.clone(),
            program: env!("CARGO_PKG_VERSION").to_string(),
        };
        let snapshot = Snapshot {
            model: &model.decoder,
            moments: self.optimizer.moments(),
            config,
        };
        let store = self.run.checkpoints();
        let generation = store.save(&snapshot, &state)?;
        self.console
            .note(&format!("checkpoint {}", generation.dir.display()));
        self.at.checkpoint = Some(generation.dir);
        if let Err(error) = store.retire(self.training.keep_checkpoints) {
            // A full set of old checkpoints is no reason to end a run.
            self.console.note(&format!("warning: {error}"));
        }
        Ok(())
    }
}
