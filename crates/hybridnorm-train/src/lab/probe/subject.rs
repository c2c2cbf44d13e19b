//! What is measured, and of which model.

use core::fmt;
use core::str::FromStr;

use hybridnorm_core::{ConfigError, InitScheme, Placement, unknown_name};
use serde::{Deserialize, Serialize};

use super::record::{Line, Setting};
use super::search::{self, Next};
use crate::run::RunConfig;

/// What can be measured of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Gradients, activations and attention by layer, in the first and the last step of a short run.
    Layers,
    /// How gradients follow the scale of the weights.
    Coupling,
    /// The largest learning rate that does not diverge.
    LearningRate,
    /// The loss of a short run from each initialisation.
    Init,
}

impl Measure {
    /// Every measure by name, in the order in which they are taken.
    pub const ALL: [(&'static str, Self); 4] = [
        ("layers", Self::Layers),
        ("coupling", Self::Coupling),
        ("learning-rate", Self::LearningRate),
        ("init", Self::Init),
    ];
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, measure)| measure == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Measure {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, measure)| *measure)
            .ok_or_else(|| unknown_name("measure", name, Self::ALL.iter().map(|(name, _)| *name)))
    }
}

/// A model that is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Where the norms stand.
    pub placement: String,
    /// Blocks.
    pub depth: usize,
    /// How parameters are drawn.
    pub init: InitScheme,
    /// The seed of the draw, counted from 0; it also says which batches are trained on.
    pub seed: u64,
}

impl Subject {
    /// `base` as this model.
    ///
    /// # Errors
    /// When the placement has no such name, or the model cannot be built.
    pub fn config(&self, base: &RunConfig) -> Result<RunConfig, ConfigError> {
        let mut config = base.clone();
        config.model.placement = self.placement.parse()?;
        config.model.n_layers = self.depth;
        config.model.init.scheme = Some(self.init);
        config.model.init.seed = base.model.init.seed.wrapping_add(self.seed);
        config.validate()?;
        Ok(config)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} layers, {}, seed {}",
            self.placement, self.depth, self.init, self.seed
        )
    }
}

/// One measurement, or one search for a learning rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What.
    pub measure: Measure,
    /// Of which model.
    pub subject: Subject,
}

/// Every measurement that was asked for, the shallow models first: of each placement with its own initialisation, and for
/// [`Measure::Init`] with each of `inits`.
pub fn jobs(
    measures: &[Measure],
    placements: &[Placement],
    depths: &[usize],
    inits: &[InitScheme],
    seeds: u64,
) -> Vec<Job> {
    let mut found = Vec::new();
    for depth in depths {
        for placement in placements {
            for measure in measures {
                let inits = match measure {
                    Measure::Init => inits.to_vec(),
                    _ => vec![placement.default_init()],
                };
                for init in inits {
                    for seed in 0..seeds {
                        let subject = Subject {
                            placement: placement.to_string(),
                            depth: *depth,
                            init,
                            seed,
                        };
                        found.push(Job {
                            measure: *measure,
                            subject,
                        });
                    }
                }
            }
        }
    }
    found
}

impl Job {
    /// Whether it is among `lines`. A search for a learning rate is many lines, and is never done by one.
    pub fn is_done(&self, lines: &[Line]) -> bool {
        self.lines(lines).next().is_some()
    }

    /// The rates that were tried in `lines`, and whether each diverged.
    pub fn trials(&self, lines: &[Line]) -> Vec<(f64, bool)> {
        let trials = self.lines(lines).filter_map(|line| match line {
            Line::LearningRate(trial) => Some((trial.lr, trial.diverged.is_some())),
            _ => None,
        });
        trials.collect()
    }

    /// Whether `lines` do not say yet which learning rate is the largest that holds.
    pub fn search_goes_on(&self, setting: &Setting, lines: &[Line]) -> bool {
        let start = setting.config.schedule.lr;
        search::next(start, &self.trials(lines)) != Next::Done
    }

    fn lines<'a>(&'a self, lines: &'a [Line]) -> impl Iterator<Item = &'a Line> {
        lines
            .iter()
            .filter(|line| line.about() == Some((self.measure, &self.subject)))
    }
}
