//! The arms of a comparison: one for each choice of placement, initialisation, learning rate and depth.

use core::fmt;
use core::str::FromStr;
use std::path::{Path, PathBuf};

use hybridnorm_core::{ConfigError, InitScheme, Placement, unknown_name};
use serde::{Deserialize, Serialize};

use super::RUNS;

/// What arms may differ in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Axis {
    /// Where the norms stand.
    Placement,
    /// How parameters are drawn.
    Init,
    /// The highest learning rate.
    LearningRate,
    /// Blocks.
    Depth,
}

impl Axis {
    /// Every axis by name, in the order in which one is chosen to be judged.
    pub const ALL: [(&'static str, Self); 4] = [
        ("placement", Self::Placement),
        ("init", Self::Init),
        ("learning-rate", Self::LearningRate),
        ("depth", Self::Depth),
    ];
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, axis)| axis == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Axis {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, axis)| *axis)
            .ok_or_else(|| unknown_name("contrast", name, Self::ALL.iter().map(|(name, _)| *name)))
    }
}

/// Which initialisations the arms have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inits {
    /// Each placement its own best, as the paper does.
    Own,
    /// This one for all.
    Common(InitScheme),
    /// Each its own, and once more this one for all.
    Both(InitScheme),
    /// Each of these for each placement.
    Listed(Vec<InitScheme>),
}

/// The choices of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Placements; at least one.
    pub placements: Vec<Placement>,
    /// Initialisations.
    pub inits: Inits,
    /// Learning rates; at least one.
    pub rates: Vec<f64>,
    /// Depths; at least one.
    pub depths: Vec<usize>,
}

/// One choice: what all its runs share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arm {
    /// What sets it apart from the other arms, fit for a folder's name.
    pub name: String,
    /// Where the norms stand.
    pub placement: String,
    /// How parameters are drawn.
    pub init: InitScheme,
    /// Whether that is the placement's own best.
    pub own_init: bool,
    /// The highest learning rate.
    pub lr: f64,
    /// Blocks.
    pub n_layers: usize,
}

impl Grid {
    /// Every arm once, placements outermost.
    ///
    /// # Errors
    /// When a choice is listed twice, or two placements go by one name.
    pub fn arms(&self) -> Result<Vec<Arm>, ConfigError> {
        unique(
            "placements",
            self.placements.iter().map(Placement::to_string),
        )?;
        unique("learning-rates", self.rates.iter().map(f64::to_string))?;
        unique("depths", self.depths.iter().map(usize::to_string))?;
        if let Inits::Listed(inits) = &self.inits {
            unique("inits", inits.iter().map(InitScheme::to_string))?;
        }
        let mut arms: Vec<Arm> = Vec::new();
        for placement in &self.placements {
            for init in self.inits_of(placement) {
                for lr in &self.rates {
                    for n_layers in &self.depths {
                        arms.push(self.arm(placement, init, *lr, *n_layers));
                    }
                }
            }
        }
        Ok(arms)
    }

    fn inits_of(&self, placement: &Placement) -> Vec<InitScheme> {
        let own = placement.default_init();
        match &self.inits {
            Inits::Own => vec![own],
            Inits::Common(init) => vec![*init],
            Inits::Both(init) if *init == own => vec![own],
            Inits::Both(init) => vec![own, *init],
            Inits::Listed(inits) => inits.clone(),
        }
    }

    fn arm(&self, placement: &Placement, init: InitScheme, lr: f64, n_layers: usize) -> Arm {
        let own_init = init == placement.default_init();
        // A custom placement has spaces in its name.
        let mut name = placement.to_string().replace(' ', "");
        if !own_init || matches!(self.inits, Inits::Listed(_)) {
            name += &format!("+{init}");
        }
        if self.rates.len() > 1 {
            name += &format!("+lr={lr}");
        }
        if self.depths.len() > 1 {
            name += &format!("+{n_layers}layers");
        }
        Arm {
            name,
            placement: placement.to_string(),
            init,
            own_init,
            lr,
            n_layers,
        }
    }

    /// The first axis on which there is more than one choice.
    pub fn widest_axis(&self) -> Axis {
        let inits = match &self.inits {
            Inits::Listed(inits) => inits.len(),
            _ => 1,
        };
        let choices = [
            self.placements.len(),
            inits,
            self.rates.len(),
            self.depths.len(),
        ];
        let found = Axis::ALL.iter().zip(choices).find(|(_, n)| *n > 1);
        found.map_or(Axis::Placement, |((_, axis), _)| *axis)
    }
}

impl Arm {
    /// Its choice on an axis.
    pub fn choice(&self, axis: Axis) -> String {
        match axis {
            Axis::Placement => self.placement.clone(),
            Axis::Init => self.init.to_string(),
            Axis::LearningRate => self.lr.to_string(),
            Axis::Depth => self.n_layers.to_string(),
        }
    }

    /// The directory of its run with `seed`, in a comparison's.
    pub fn dir(&self, comparison: &Path, seed: u64) -> PathBuf {
        let arm = comparison.join(RUNS).join(&self.name);
        arm.join(format!("seed-{seed}"))
    }
}

fn unique(field: &'static str, names: impl Iterator<Item = String>) -> Result<(), ConfigError> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        if !seen.insert(name.clone()) {
            return Err(ConfigError::new(field, name, "each once"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(placements: &[&str], inits: Inits) -> Grid {
        Grid {
            placements: placements
                .iter()
                .map(|name| name.parse().unwrap())
                .collect(),
            inits,
            rates: vec![1e-3],
            depths: vec![4],
        }
    }

    fn names(grid: &Grid) -> Vec<String> {
        let arms = grid.arms().unwrap();
        arms.into_iter().map(|arm| arm.name).collect()
    }

    #[test]
    fn own_and_common_initialisations_share_what_is_the_same() {
        // The paper: normal for Pre-Norm, Megatron for HybridNorm.
        let placements = ["pre", "hybrid"];
        let grid = |inits| grid(&placements, inits);
        assert_eq!(names(&grid(Inits::Own)), ["pre", "hybrid"]);
        assert_eq!(
            names(&grid(Inits::Common(InitScheme::Normal))),
            ["pre", "hybrid+normal"]
        );
        assert_eq!(
            names(&grid(Inits::Both(InitScheme::Normal))),
            ["pre", "hybrid", "hybrid+normal"]
        );
    }

    #[test]
    fn an_arm_is_named_after_what_differs() {
        let mut grid = grid(&["pre"], Inits::Own);
        grid.rates = vec![1e-3, 0.004];
        grid.depths = vec![8, 16];
        assert_eq!(grid.widest_axis(), Axis::LearningRate);
        assert_eq!(names(&grid)[3], "pre+lr=0.004+16layers");
        let arm = &grid.arms().unwrap()[0];
        assert_eq!(
            arm.dir(Path::new("out"), 7),
            Path::new("out/runs/pre+lr=0.001+8layers/seed-7")
        );
    }

    #[test]
    fn what_is_listed_twice_is_refused() {
        let error = grid(&["pre", "post", "pre"], Inits::Own)
            .arms()
            .unwrap_err();
        assert!(error.to_string().contains("placements"), "{error}");
    }
}
