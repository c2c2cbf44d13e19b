//! The `[optimizer]` of a run: which one, and how gradients are clipped.

use core::fmt;

use hybridnorm_core::ConfigError;
use serde::{Deserialize, Serialize};

use super::adamw::AdamWConfig;
use super::muon::MuonConfig;
use super::names::named;

/// An optimiser by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum OptimizerName {
    /// AdamW for every parameter. The paper's choice.
    #[default]
    AdamW,
    /// Muon for the matrices of the blocks, AdamW for embedding, head, norms and biases.
    Muon,
}

named! { OptimizerName, "optimizer.name":
    "adamw" AdamW "AdamW for every parameter, as in the paper",
    "muon" Muon "Muon for the matrices of the blocks, AdamW for embedding, head, norms and biases",
}

/// Optimiser and clipping.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Which one.
    pub name: OptimizerName,
    /// AdamW, for all parameters or for those that are not Muon's; its weight decay and its clipping are for all of them.
    #[serde(flatten)]
    pub adamw: AdamWConfig,
    /// Muon; its defaults where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
    /// Another clipping at the start of the run; absent, there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_warmup: Option<ClipWarmup>,
}

/// The largest gradient norm moves in a straight line from a value of its own to `max_grad_norm`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClipWarmup {
    /// The largest gradient norm at the very start: above `max_grad_norm` to fall, below it to rise.
    pub from: f64,
    /// Tokens until `max_grad_norm` holds.
    pub tokens: u64,
}

impl From<AdamWConfig> for OptimizerConfig {
    fn from(adamw: AdamWConfig) -> Self {
        Self {
            adamw,
            ..Self::default()
        }
    }
}

impl OptimizerConfig {
    /// Muon, where it is in use.
    pub fn muon(&self) -> Option<MuonConfig> {
        match self.name {
            OptimizerName::AdamW => None,
            OptimizerName::Muon => Some(self.muon.clone().unwrap_or_default()),
        }
    }

    /// Takes another optimiser. Muon's table goes with Muon.
    pub fn rename(&mut self, name: OptimizerName) {
        self.name = name;
        if self.muon().is_none() {
            self.muon = None;
        }
    }

    /// Clipping over the tokens of the run.
    pub fn clip(&self) -> Clip {
        Clip {
            max_norm: self.adamw.max_grad_norm,
            warmup: self.clip_warmup,
        }
    }

    /// Refuses what cannot be stepped with in a run of `total` tokens.
    ///
    /// # Errors
    /// Names the field, its value and what is allowed.
    pub fn validate(&self, total: u64) -> Result<(), ConfigError> {
        let o = &self.adamw;
        for (field, value) in [
            ("optimizer.epsilon", o.epsilon),
            ("optimizer.max_grad_norm", o.max_grad_norm),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(ConfigError::new(field, value, "a finite number above 0"));
            }
        }
        for (field, value) in [("optimizer.beta1", o.beta1), ("optimizer.beta2", o.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(ConfigError::new(field, value, "at least 0 and below 1"));
            }
        }
        if !(0.0..=f64::MAX).contains(&o.weight_decay) {
            let (field, allowed) = ("optimizer.weight_decay", "a finite number of at least 0");
            return Err(ConfigError::new(field, o.weight_decay, allowed));
        }
        match (&self.muon, self.name) {
            (Some(_), OptimizerName::AdamW) => {
                let allowed = "only with optimizer.name = \"muon\", without which it does nothing";
                return Err(ConfigError::new("optimizer.muon", "a table", allowed));
            }
            (Some(muon), OptimizerName::Muon) => muon.validate()?,
            (None, _) => {}
        }
        let Some(ClipWarmup { from, tokens }) = self.clip_warmup else {
            return Ok(());
        };
        if !(from.is_finite() && from > 0.0) {
            let (field, allowed) = ("optimizer.clip_warmup.from", "a finite number above 0");
            return Err(ConfigError::new(field, from, allowed));
        }
        if from == o.max_grad_norm {
            let allowed = "another value than optimizer.max_grad_norm, or no clip_warmup";
            return Err(ConfigError::new(
                "optimizer.clip_warmup.from",
                from,
                allowed,
            ));
        }
        if !(1..=total).contains(&tokens) {
            let allowed = format!("from 1 to the {total} tokens of the run");
            return Err(ConfigError::new(
                "optimizer.clip_warmup.tokens",
                tokens,
                allowed,
            ));
        }
        Ok(())
    }
}

impl fmt::Display for OptimizerConfig {
    /// For people, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.adamw;
        let adamw = format!("AdamW({}, {})", o.beta1, o.beta2);
        match self.muon() {
            None => f.write_str(&adamw)?,
            Some(muon) => write!(f, "{muon} for the blocks' matrices, {adamw} for the rest")?,
        }
        write!(f, ", weight decay {}, gradient norm up to ", o.weight_decay)?;
        if let Some(ClipWarmup { from, tokens }) = self.clip_warmup {
            write!(f, "{from}, moving over {tokens} tokens to ")?;
        }
        write!(f, "{}", o.max_grad_norm)
    }
}

/// The largest gradient norm as a function of the tokens seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// What it is after the warm-up.
    pub max_norm: f64,
    /// The warm-up, if any.
    pub warmup: Option<ClipWarmup>,
}

impl Clip {
    /// The largest gradient norm at `t` tokens.
    pub fn at(&self, t: u64) -> f64 {
        match self.warmup {
            Some(ClipWarmup { from, tokens }) if t < tokens => {
                from + (self.max_norm - from) * t as f64 / tokens as f64
            }
            _ => self.max_norm,
        }
    }
}
