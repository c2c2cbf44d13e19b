//! The guards at work: judging a step before its gradient reaches the weights, and going back.

use burn::data::dataloader::DataLoaderIterator;

use super::error::TrainError;
use super::incident::Incident;
use super::loader::LoadError;
use super::log::Record;
use super::model::{LanguageModel, TokenBatch};
use super::restore;
use super::routers::RouterWatch;
use super::step::{StepFigures, StepGradients};
use super::strategy::{Position, Session};
use crate::guard::{Action, Spike};
use crate::recipe::Optimizer;

/// What is to be done about a step.
pub(super) enum Judged {
    /// To be trained on.
    Good(Box<StepGradients>),
    /// Not to be trained on.
    Skipped,
    /// Not to be trained on, and the run goes back to its newest checkpoint, for this reason.
    RollBack(String),
}

impl Session {
    /// Forward and backward passes over the micro-batches of `step`, judged. The weights are not touched.
    pub(super) fn gradients(
        &mut self,
        model: &LanguageModel,
        batches: &mut dyn DataLoaderIterator<TokenBatch>,
        step: u64,
    ) -> Result<Judged, TrainError> {
        let wrong = |problem: String| TrainError::Batch { step, problem };
        let accumulation = self.training.accumulation();
        let mut micro_batches = (0..accumulation).map(|_| match batches.next() {
            Some(batch) => batch.map_err(|error| LoadError::of(step, &error)),
            None => Err(wrong("the loader ended".to_string())),
        });
        if self.guard_state.has_refused(step) {
            micro_batches.try_for_each(|batch| batch.map(drop))?;
            return Ok(Judged::Skipped);
        }
        let gradients = match StepGradients::of(model, micro_batches, &self.replicas, step) {
            Ok(gradients) => gradients,
            Err(error @ TrainError::Routing { .. }) => {
                return self.refuse(model, step, error, None, self.guard.non_finite);
            }
            Err(error) => return Err(error),
        };
        let figures = &gradients.figures;
        if let Err(error) = gradients.check(model, step) {
            return self.refuse(model, step, error, Some(figures), self.guard.non_finite);
        }
        let StepFigures { loss, norm, .. } = *figures;
        if let Some(Spike { what, value, limit }) = self.guard_state.judge(&self.guard, loss, norm)
        {
            let spike = TrainError::Spike {
                what,
                value,
                limit,
                step,
            };
            match self.guard.spike {
                Action::Warn => self.report(model, step, &spike, Some(figures), Action::Warn)?,
                action => return self.refuse(model, step, spike, Some(figures), action),
            }
        }
        self.guard_state.accept(&self.guard, loss, norm);
        Ok(Judged::Good(Box::new(gradients)))
    }

    /// Does not train on `step`, and what `action` says beside.
    ///
    /// # Errors
    /// `error` itself where that ends the run, or that there were too many of its kind.
    fn refuse(
        &mut self,
        model: &LanguageModel,
        step: u64,
        error: TrainError,
        figures: Option<&StepFigures>,
        action: Action,
    ) -> Result<Judged, TrainError> {
        let patient = !self.guard_state.is_out_of_patience(&self.guard, step);
        let goes_on = matches!(action, Action::Skip | Action::Rollback);
        let action = if patient { action } else { Action::Stop };
        self.report(model, step, &error, figures, action)?;
        match action {
            Action::Skip => {
                self.guard_state.refuse(step);
                Ok(Judged::Skipped)
            }
            Action::Rollback => Ok(Judged::RollBack(error.to_string())),
            Action::Warn | Action::Stop if goes_on => Err(TrainError::OutOfPatience {
                step,
                patience: self.guard.patience,
                window: self.guard.window,
                last: error.to_string(),
            }),
            Action::Warn | Action::Stop => Err(error),
        }
    }

    /// Tells of a step that went wrong: on the console, in the log, and at length in a file of its own.
    fn report(
        &mut self,
        model: &LanguageModel,
        step: u64,
        error: &TrainError,
        figures: Option<&StepFigures>,
        action: Action,
    ) -> Result<(), TrainError> {
        let seq = self.training.seq;
        let message = error.to_string();
        let source = &*self.source;
        let incident = Incident::new(step, message.clone(), action, figures, model, source, seq);
        let saved = incident.save(&self.run.incidents());
        self.console.note(&match saved {
            Ok(path) => format!("warning: {message} ({action}; see {})", path.display()),
            // It is the run that matters.
            Err(error) => format!("warning: {message} ({action}; {error})"),
        });
        // What is rolled back is cut from the log, so it is told of there afterwards.
        match action {
            Action::Rollback => Ok(()),
            action => self.log.write(&Record::Guard {
                step,
                refused: step,
                action,
                message,
            }),
        }
    }

    /// Back to the newest checkpoint, or to the beginning, to pass over `step` for the reason in `message`.
    pub(super) fn roll_back(
        &mut self,
        model: LanguageModel,
        step: u64,
        message: String,
    ) -> (LanguageModel, Result<(), TrainError>) {
        // The failure is the one to report; the weights are no longer of interest.
        let device = model.decoder.embedding.weight.lazy_device();
        let mut back = || -> Result<LanguageModel, TrainError> {
            let store = self.run.checkpoints();
            let fresh = LanguageModel::new(&self.model, &device)?;
            let fresh = fresh.with_stages(self.training.stages());
            self.optimizer = Optimizer::new(self.recipe.clone(), &fresh);
            let data = self.data.as_deref();
            let (model, found) =
                restore::newest(&store, fresh, &mut self.optimizer, data, &self.console)?;
            let (at, mut state) = found.unwrap_or_default();
            for refused in self.guard_state.refused() {
                state.refuse(*refused);
            }
            state.refuse(step);
            self.guard_state = state;
            self.log.cut(at.step)?;
            self.watch = RouterWatch::new(self.log.collapsed().clone());
            self.console.note(&format!(
                "back to step {}, from where step {step} will be passed over",
                at.step
            ));
            self.log.write(&Record::Guard {
                step: at.step,
                refused: step,
                action: Action::Rollback,
                message: message.clone(),
            })?;
            self.at = Position {
                // The time that was lost was spent all the same.
                elapsed_before: self.at.elapsed_before,
                saved: self.at.saved,
                ..at
            };
            Ok(model)
        };
        match back() {
            Ok(model) => (model, Ok(())),
            Err(error) => (model, Err(error)),
        }
    }
}
