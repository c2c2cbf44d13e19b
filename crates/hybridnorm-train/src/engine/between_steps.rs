//! Between two steps: evaluations, checkpoints, and which of these are kept.

use std::time::Instant;

use burn::module::Module;
use burn::train::{EventProcessorTraining, Interrupter, LearnerEvent, TrainingItem};

use super::EvaluationScope;
use super::error::TrainError;
use super::log::Record;
use super::metrics::Evaluation;
use super::model::{LanguageModel, Output};
use super::step::finite;
use super::strategy::{Events, Session};
use super::tasks::TaskRecord;
use crate::checkpoint::{CheckpointError, FORMAT, Snapshot, TrainingState};
use crate::run::TrainingConfig;

impl Session {
    /// Evaluates and saves as configured. True if the run is to stop here.
    pub(super) fn after_step(
        &mut self,
        model: &LanguageModel,
        tokens: u64,
        elapsed_s: f64,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<bool, TrainError> {
        let step = self.at.step;
        let last = step == self.training.steps;
        // A stop asked for after this line is seen after the next step.
        self.at.out_of_time = !last && self.ends.is_some_and(|ends| Instant::now() >= ends);
        let stopping = interrupter.should_stop() || self.at.out_of_time;
        if last {
            // What has been trained is safe before anything else may fail.
            interrupter.fail_on_error(events.flush());
            self.save(model, tokens, elapsed_s)?;
        }
        if last || !stopping {
            self.assess(model, events, interrupter)?;
        }
        if let Some(error) = interrupter.error() {
            return Err(TrainError::Learner(error));
        }
        if last {
            self.log.sync()?;
        } else if stopping || self.is_due(self.training.checkpoint_every, step) {
            interrupter.fail_on_error(events.flush());
            self.save(model, tokens, elapsed_s)?;
        }
        if self.at.saved == Some(step) {
            self.retire();
        }
        Ok(stopping)
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
            self.progress(step),
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

    /// Asks the model the questions of the run, if there are any.
    fn ask(&mut self, model: &LanguageModel, tokens: u64) -> Result<(), TrainError> {
        let Some(exam) = &self.exam else {
            return Ok(());
        };
        let step = self.at.step;
        if exam.names().all(|task| self.log.has_task(step, task)) {
            return Ok(());
        }
        let records = exam.ask(&model.valid());
        let records = records.map_err(|source| TrainError::Evaluation {
            step,
            source: source.into(),
        })?;
        for record in records {
            if self.log.has_task(step, &record.task) {
                continue;
            }
            let TaskRecord {
                task,
                questions,
                gold_bits_per_byte,
                ..
            } = &record;
            let right = record.accuracy.map_or(String::new(), |share| {
                let error = record.accuracy_error.unwrap_or(0.0);
                format!("{share:.3} ± {error:.3} right, ")
            });
            self.console.note(&format!(
                "step {step}, {task}: {right}{gold_bits_per_byte:.4} bits per byte of the right answers ({questions} questions)"
            ));
            self.log.write(&Record::Task {
                step,
                tokens,
                record,
            })?;
        }
        Ok(())
    }

    /// Evaluates and asks as is due where the run stands, and writes down what the log does not hold yet. Figures that
    /// are there are not taken again, but for those of the end, which the run's results need.
    fn assess(
        &mut self,
        model: &LanguageModel,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<(), TrainError> {
        let step = self.at.step;
        let tokens = step * self.training.tokens_per_step();
        let last = step == self.training.steps;
        let known = self.log.evaluations().contains_key(&step);
        if last || (self.is_due(self.training.eval_every, step) && !known) {
            let scope = match last {
                true => EvaluationScope::Final,
                false => EvaluationScope::Interval,
            };
            let evaluation = self.evaluate(model, scope, events, interrupter)?;
            if let Some(evaluation) = evaluation.filter(|_| !known) {
                self.log.write(&Record::Evaluation {
                    step,
                    tokens,
                    evaluation,
                })?;
            }
        }
        let every = self.exam.as_ref().map(|exam| exam.every);
        if last || every.is_some_and(|every| self.is_due(every, step)) {
            self.ask(model, tokens)?;
        }
        Ok(())
    }

    /// Makes up for what an earlier process was stopped before: it may have saved a checkpoint, and not evaluated it.
    /// The log is then that of a run that nothing happened to.
    pub(super) fn catch_up(
        &mut self,
        model: &LanguageModel,
        events: &mut Events,
        interrupter: &Interrupter,
    ) -> Result<(), TrainError> {
        if self.at.step == 0 {
            return Ok(());
        }
        self.assess(model, events, interrupter)?;
        if self.at.step == self.training.steps {
            self.log.sync()?;
            self.retire();
        }
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
            guard: self.guard_state.clone(),
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
        self.at.saved = Some(generation.step);
        Ok(())
    }

    /// Deletes checkpoints that are no longer to be kept: all but the newest, the best, and every so many.
    fn retire(&self) {
        let TrainingConfig {
            keep_checkpoints,
            keep_best,
            keep_every,
            ..
        } = self.training;
        let store = self.run.checkpoints();
        let best = || -> Result<Option<u64>, CheckpointError> {
            let generations = store.generations()?;
            let scored = generations.iter().filter_map(|generation| {
                Some((
                    self.log.evaluations().get(&generation.step)?,
                    generation.step,
                ))
            });
            // Of equals, the newest.
            let best = scored.min_by(|a, b| a.0.total_cmp(b.0).then(b.1.cmp(&a.1)));
            Ok(best.map(|(_, step)| step))
        };
        let best = if keep_best { best() } else { Ok(None) };
        let retired = best.and_then(|best| {
            store.retire(keep_checkpoints, |generation| {
                best == Some(generation.step) || self.is_due(keep_every, generation.step)
            })
        });
        if let Err(error) = retired {
            // A full set of old checkpoints is no reason to end a run.
            self.console.note(&format!("warning: {error}"));
        }
    }
}
