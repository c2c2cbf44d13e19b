//! What [`StepBench`] found, for programs and for people.

use core::fmt;

use hybridnorm_core::ConfigError;
use serde::Serialize;

use super::machine::{self, Peak};
use super::profile::Profile;
use super::step::{Figures, StepBench};
use crate::device::DeviceSpec;
use crate::engine::Recompute;
use crate::memory::in_words;
use crate::recipe::OptimizerName;
use crate::run::LOOKS;
use crate::sizes::Parameters;

/// The figures of a training step, with all that it takes to repeat them. Fields that `torch_train_step.py` prints too
/// have its names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// What was measured: `step`.
    pub bench: &'static str,
    /// Program and version.
    pub engine: &'static str,
    /// The device, as it is typed.
    pub device: String,
    /// The hardware, as it names itself.
    pub device_name: String,
    /// Threads that CPU backends use.
    pub threads: Option<usize>,
    /// Type of weights and activations.
    pub dtype: String,
    /// The preset, if the model started from one.
    pub preset: Option<&'static str>,
    /// Where the norms stand.
    pub placement: String,
    /// Whether the head shares the embedding's weights.
    pub tied: bool,
    /// Width of the stream.
    pub d_model: usize,
    /// Blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Inner width of the feed-forward layer, of each expert in a sparse model.
    pub ffn: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Sequences in a step.
    pub batch: usize,
    /// Sequences in one forward and backward pass.
    pub micro_batch: usize,
    /// What is computed twice.
    pub recompute: Recompute,
    /// Rows of logits that exist at once, where somebody said so.
    pub logit_rows: Option<usize>,
    /// The optimiser.
    pub optimizer: OptimizerName,
    /// Steps timed.
    pub steps: u64,
    /// Steps before those.
    pub warmup: u64,
    /// Parameters of the model.
    pub params: usize,
    /// Those that work on any one token; of a dense model, all.
    pub active_params: usize,
    /// Experts of a sparse model's feed-forward layer; `None` for a dense model.
    pub experts: Option<usize>,
    /// Experts for each token.
    pub top_k: Option<usize>,
    /// Milliseconds of a step, the median.
    pub step_ms: f64,
    /// Milliseconds that a tenth of the steps stayed below.
    pub p10_ms: f64,
    /// Milliseconds that nine tenths of the steps stayed below.
    pub p90_ms: f64,
    /// Milliseconds of the fastest step.
    pub min_ms: f64,
    /// Tokens of a step over the median of its time.
    pub tokens_per_s: f64,
    /// Milliseconds that a look at every layer takes beside a step, the median; `None` where none was taken.
    pub look_ms: Option<f64>,
    /// Loss of the last step, before its update, in nats per token.
    pub loss: f64,
    /// Most memory taken, in bytes; `None` where it is not known.
    pub peak_bytes: Option<u64>,
    /// What `peak_bytes` counts, or why it is not known.
    pub peak_bytes_is: &'static str,
    /// What `plan` would have predicted for it; `None` where the process has no part in it.
    pub predicted_peak_bytes: Option<u64>,
    /// Where the time of a step went, as far as it is known: the fast paths of `flex`. Empty on other devices.
    pub operations: Vec<OperationTime>,
    /// The same layer by layer.
    pub profile: Profile,
}

/// What an operation takes of a step, forward and backward.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OperationTime {
    /// What it is.
    pub name: &'static str,
    /// Milliseconds of a step, the mean.
    pub ms: f64,
}

impl StepReport {
    pub(super) fn new(
        bench: &StepBench,
        spec: &DeviceSpec,
        device_name: String,
        figures: &Figures,
        peak: Peak,
    ) -> Result<Self, ConfigError> {
        let (model, times) = (&bench.model.decoder, &figures.step_ms);
        let parameters = Parameters::of(&bench.model)?;
        let sparse = bench.model.sparse.as_ref();
        let profile = Profile::new(&figures.operations);
        Ok(Self {
            bench: "step",
            engine: concat!("hybridnorm ", env!("CARGO_PKG_VERSION")),
            device: spec.to_string(),
            device_name,
            threads: machine::threads(),
            dtype: bench.stages.precision.to_string(),
            preset: bench.preset,
            placement: model.placement.to_string(),
            tied: model.tied,
            d_model: model.d_model,
            layers: model.n_layers,
            heads: model.n_heads,
            kv_heads: model.n_kv_heads,
            ffn: sparse.map_or(model.d_ff, |sparse| sparse.d_ff),
            vocab: model.padded_vocab_size,
            seq: bench.seq,
            batch: bench.batch,
            micro_batch: bench.micro_batch,
            recompute: bench.stages.recompute,
            logit_rows: bench.stages.logit_rows,
            optimizer: bench.optimizer,
            steps: bench.steps,
            warmup: bench.warmup,
            params: parameters.total,
            active_params: parameters.active,
            experts: sparse.map(|sparse| sparse.router.n_experts),
            top_k: sparse.map(|sparse| sparse.router.top_k),
            step_ms: times.median,
            p10_ms: times.p10,
            p90_ms: times.p90,
            min_ms: times.min,
            tokens_per_s: bench.tokens_per_step() as f64 / times.median * 1e3,
            look_ms: figures.look_ms,
            loss: figures.loss,
            peak_bytes: peak.bytes,
            peak_bytes_is: peak.meaning,
            predicted_peak_bytes: match spec.row().in_host_memory {
                // What is predicted is the memory of training.
                true if !bench.forward_only => Some(bench.memory()?.total()),
                _ => None,
            },
            operations: profile
                .operations
                .iter()
                .zip(profile.totals())
                .map(|(&name, ms)| OperationTime { name, ms })
                .collect(),
            profile,
        })
    }
}

impl fmt::Display for StepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            device_name,
            dtype,
            ..
        } = self;
        write!(f, "device    {device} ({device_name}), {dtype}")?;
        if let Some(threads) = self.threads {
            write!(f, ", {threads} CPU threads")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "time      {:.2} ms a step (median; {:.2} to {:.2} from 10 % to 90 %, fastest {:.2})",
            self.step_ms, self.p10_ms, self.p90_ms, self.min_ms
        )?;
        writeln!(f, "speed     {:.1} tokens/s", self.tokens_per_s)?;
        if let Some(look) = self.look_ms {
            let share = look / self.step_ms;
            writeln!(
                f,
                "looks     {look:.2} ms each, {share:.3} of a step: with --diagnostics {:.0} or more less than {:.0} % of a long run",
                (share / LOOKS).ceil().max(1.0),
                100.0 * LOOKS
            )?;
        }
        writeln!(
            f,
            "loss      {:.4} nats per token in the last step (a uniform guess: {:.4})",
            self.loss,
            (self.vocab as f64).ln()
        )?;
        match self.peak_bytes {
            Some(bytes) => writeln!(
                f,
                "memory    {:.1} MiB, {}",
                bytes as f64 / f64::from(1 << 20),
                self.peak_bytes_is
            ),
            None => writeln!(f, "memory    {}", self.peak_bytes_is),
        }?;
        if let Some(bytes) = self.predicted_peak_bytes {
            writeln!(f, "          {} predicted", in_words(bytes))?;
        }
        let mut rest = self.step_ms;
        for OperationTime { name, ms } in &self.operations {
            let share = 100.0 * ms / self.step_ms;
            writeln!(f, "          {ms:9.2} ms {share:5.1} %  {name}")?;
            rest -= ms;
        }
        if !self.operations.is_empty() {
            // The operations are means over the steps, of which a slow one may outweigh what is left of the median.
            let rest = rest.max(0.0);
            let share = 100.0 * rest / self.step_ms;
            let what = "the rest: residual sums, embedding, the loop";
            writeln!(f, "          {rest:9.2} ms {share:5.1} %  {what}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hybridnorm_kernels::profile::Work;

    use super::*;
    use crate::bench::Spread;

    /// Milliseconds of the norms in one place, and nothing else.
    fn places(norms: f64) -> Vec<f64> {
        let mut place = vec![0.0; Work::ALL.len()];
        place[Work::Norm as usize] = norms;
        place
    }

    fn report(peak: Peak) -> StepReport {
        let figures = Figures {
            step_ms: Spread::of(&[400.0, 500.0, 600.0]).unwrap(),
            loss: 8.5,
            reserved: None,
            look_ms: Some(110.0),
            operations: vec![places(10.0), places(15.0)],
        };
        let spec = "flex".parse().unwrap();
        StepReport::new(&StepBench::default(), &spec, String::new(), &figures, peak).unwrap()
    }

    #[test]
    fn programs_find_the_agreed_keys() {
        let peak = Peak {
            bytes: Some(1 << 20),
            meaning: "counted",
        };
        let json = serde_json::to_value(report(peak)).unwrap();
        assert_eq!(json["step_ms"], 500.0);
        // 4 x 256 tokens in half a second.
        assert_eq!(json["tokens_per_s"], 2048.0);
        assert_eq!(json["peak_bytes"], 1 << 20);
        for key in ["p10_ms", "p90_ms", "loss", "params", "device", "placement"] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert_eq!(
            json["operations"],
            serde_json::json!([{"name": "norms", "ms": 25.0}])
        );
        let text = report(peak).to_string();
        assert!(text.contains("2048.0 tokens/s"), "{text}");
        // 0.22 of a step, of which 2 % are eleven.
        let looks = "110.00 ms each, 0.220 of a step: with --diagnostics 11 or more";
        assert!(text.contains(looks), "{text}");
        assert!(
            text.contains("5.0 %  norms") && text.contains("95.0 %  the rest"),
            "{text}"
        );
    }

    #[test]
    fn memory_that_is_not_known_says_so() {
        let peak = Peak {
            bytes: None,
            meaning: "not known: nobody counts",
        };
        let json = serde_json::to_value(report(peak)).unwrap();
        assert!(json["peak_bytes"].is_null());
        assert_eq!(json["peak_bytes_is"], peak.meaning);
        assert!(report(peak).to_string().contains(peak.meaning));
    }
}
