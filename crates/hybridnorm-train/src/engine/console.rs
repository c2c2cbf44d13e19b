//! Progress on standard error: a live bar on a terminal, plain lines elsewhere. Burn's learner drives it.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use burn::train::logger::{EvaluationProgressLogger, TrainingProgressLogger};
use burn::train::metric::{MetricDefinition, MetricId, NumericEntry};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining,
};
use burn::train::{Interrupter, LearnerSummary};
use hybridnorm_core::ConfigError;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::metrics::names;

/// Plain lines come at least this far apart, but for the first and last step.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A [`MetricsRenderer`] of our own. Clones share one output.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    bar: ProgressBar,
    out: Option<Box<dyn Write + Send>>,
    /// Lines to be shown once Burn's dashboard has left the screen, where that is in use.
    held: Option<Vec<String>>,
    names: HashMap<MetricId, String>,
    values: HashMap<String, f64>,
    split: Split,
    steps: u64,
    /// When the first step of this process ended, and which it was.
    first: Option<(Instant, u64)>,
    last_line: Option<Instant>,
    /// Steps since the last line, and the sum of their 1/(tokens/s): their mean speed is count / sum.
    pace: (f64, f64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Split {
    Train,
    Valid,
}

impl Console {
    /// A live bar if standard error is a terminal, else plain lines on it.
    pub fn stderr() -> Self {
        let stderr = std::io::stderr();
        if stderr.is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            Self::new(bar, None)
        } else {
            Self::plain(stderr)
        }
    }

    /// Plain lines into `out`.
    pub fn plain(out: impl Write + Send + 'static) -> Self {
        Self::new(ProgressBar::hidden(), Some(Box::new(out)))
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Self::new(ProgressBar::hidden(), None)
    }

    fn new(bar: ProgressBar, out: Option<Box<dyn Write + Send>>) -> Self {
        let template = "{bar:24} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        Self {
            shared: Arc::new(Mutex::new(Shared {
                bar,
                out,
                held: None,
                names: HashMap::new(),
                values: HashMap::new(),
                split: Split::Train,
                steps: 0,
                first: None,
                last_line: None,
                pace: (0.0, 0.0),
            })),
        }
    }

    /// Burn's dashboard on the terminal that is standard output. What else there is to say is said after it.
    ///
    /// # Errors
    /// Without the Cargo feature `tui`, or where standard output is no terminal.
    pub fn tui() -> Result<Self, ConfigError> {
        let refuse = |allowed: &str| Err(ConfigError::new("--tui", "on", allowed));
        if !cfg!(feature = "tui") {
            return refuse("only in a build with it: cargo build --release --features tui");
        }
        if !std::io::stdout().is_terminal() {
            return refuse("only where standard output is a terminal");
        }
        let console = Self::plain(std::io::stderr());
        console.lock().held = Some(Vec::new());
        Ok(console)
    }

    /// What Burn's learner reports to: this console, or the dashboard in its place.
    pub(super) fn renderer(&self, interrupter: &Interrupter) -> Box<dyn MetricsRenderer> {
        #[cfg(feature = "tui")]
        if self.lock().held.is_some() {
            use burn::train::renderer::tui::TuiMetricsRendererWrapper;
            return Box::new(TuiMetricsRendererWrapper::new(interrupter.clone(), None));
        }
        let _ = interrupter;
        Box::new(self.clone())
    }

    /// Says what was held back. The dashboard has left the screen.
    pub(super) fn release(&self) {
        let mut shared = self.lock();
        for line in shared.held.take().unwrap_or_default() {
            shared.line(&line);
        }
    }

    /// A line of its own, above the bar if there is one.
    pub fn note(&self, line: &str) {
        self.lock().line(line);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn line(&mut self, line: &str) {
        if let Some(held) = &mut self.held {
            held.push(line.to_string());
            return;
        }
        match &mut self.out {
            // A closed pipe does not end a run.
            Some(out) => drop(writeln!(out, "{line}").and_then(|()| out.flush())),
            None => self.bar.println(line),
        }
    }

    fn keep(&mut self, state: MetricState) {
        if let MetricState::Numeric(entry, Some(NumericEntry::Value(value))) = state
            && let Some(name) = self.names.get(&entry.metric_id)
        {
            self.values.insert(name.clone(), value);
        }
    }

    fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(f64::NAN)
    }

    fn step(&mut self, step: u64) {
        let now = Instant::now();
        let (first_at, first_step) = *self.first.get_or_insert((now, step));
        self.pace = (
            self.pace.0 + 1.0,
            self.pace.1 + 1.0 / self.value(names::SPEED),
        );
        let eta = match step.saturating_sub(first_step) {
            // Nothing but one step's speed is known yet.
            0 => String::new(),
            done => {
                let each = now.duration_since(first_at).as_secs_f64() / done as f64;
                let left = each * self.steps.saturating_sub(step) as f64;
                format!("  ETA {}", duration(Duration::from_secs_f64(left)))
            }
        };
        // Of a sparse model: the layer whose tokens spread over the fewest experts.
        let routers = match self.values.get(names::EXPERTS) {
            Some(experts) => format!(
                "  experts {experts:.1} max-load {:.1}x (layer {})",
                self.value(names::FULLEST),
                self.value(names::WORST),
            ),
            None => String::new(),
        };
        let mfu = match (
            self.values.get(names::MFU),
            self.values.get(names::MFU_ESTIMATED),
        ) {
            (Some(mfu), _) => format!("  mfu {mfu:.1}%"),
            (None, Some(mfu)) => format!("  mfu {mfu:.1}% est."),
            (None, None) => String::new(),
        };
        let line = format!(
            "step {step}/{}  loss {:.4}{routers}  lr {:.2e}  grad-norm {:.2}  {:.0} tok/s{mfu}{eta}",
            self.steps,
            self.value(names::LOSS),
            self.value(names::LR),
            self.value(names::GRAD_NORM),
            self.pace.0 / self.pace.1,
        );
        if self.out.is_some() {
            let due = self
                .last_line
                .is_none_or(|last| now.duration_since(last) >= LINE_INTERVAL);
            if due || step >= self.steps {
                self.line(&line);
                self.last_line = Some(now);
                self.pace = (0.0, 0.0);
            }
        } else {
            self.bar.set_position(step);
            self.bar.set_message(line);
            // The bar shows the speed of about the last ten steps.
            if self.pace.0 >= 10.0 {
                self.pace = (self.pace.0 / 2.0, self.pace.1 / 2.0);
            }
        }
    }
}

/// `2m10s`: at most two units.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

impl MetricsRendererTraining for Console {
    fn update_train(&mut self, state: MetricState) {
        self.lock().keep(state);
    }

    fn update_valid(&mut self, state: MetricState) {
        self.lock().keep(state);
    }

    fn on_train_end(
        &mut self,
        _summary: Option<LearnerSummary>,
    ) -> Result<(), Box<dyn core::error::Error>> {
        self.lock().bar.abandon();
        Ok(())
    }
}

impl TrainingProgressLogger for Console {
    fn start(
        &mut self,
        _epochs: usize,
        _first: usize,
        _items: Option<usize>,
        _label: Option<&str>,
    ) {
    }

    fn update_epoch(&mut self, _epoch: usize) {}

    fn start_split(&mut self, split: &str, total_items: usize) {
        let mut shared = self.lock();
        shared.split = match split {
            "valid" => Split::Valid,
            _ => Split::Train,
        };
        if shared.split == Split::Train {
            shared.steps = total_items as u64;
            shared.bar.set_length(total_items as u64);
        }
    }

    fn update_split(&mut self, items_processed: usize) {
        let mut shared = self.lock();
        match shared.split {
            Split::Train => shared.step(items_processed as u64),
            Split::Valid => {
                let line = format!(
                    "evaluation at step {items_processed}/{}  {:.4} nats/token  {:.4} bits/byte",
                    shared.steps,
                    shared.value(names::NATS),
                    shared.value(names::BITS),
                );
                shared.line(&line);
            }
        }
    }

    fn end_split(&mut self) {
        self.lock().split = Split::Train;
    }

    fn end(&mut self) {}

    fn log_event_training(&mut self, _event: String) {}
}

impl MetricsRendererEvaluation for Console {
    fn update_test(&mut self, _name: EvaluationName, state: MetricState) {
        self.lock().keep(state);
    }
}

impl EvaluationProgressLogger for Console {
    fn start_global_progress(&mut self, _total_tests: usize) {}

    fn start_test(&mut self, _name: &str, _total_items: usize) {}

    fn update_test_progress(&mut self, _items_processed: usize) {}

    fn end_test(&mut self) {}

    fn end_global_progress(&mut self) {}

    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Console {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, definition: MetricDefinition) {
        let name = definition.name.to_string();
        self.lock().names.insert(definition.metric_id, name);
    }
}
