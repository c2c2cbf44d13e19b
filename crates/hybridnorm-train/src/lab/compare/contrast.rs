//! Which arm is held against which.

use hybridnorm_core::{ConfigError, unknown_name};
use serde::{Deserialize, Serialize};

use super::arm::{Arm, Axis, Inits};
use super::stats::{Paired, Verdict};

/// What is judged: arms that differ in `axis` only, each against the one whose choice there is `baseline`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contrast {
    /// What they differ in.
    pub axis: Axis,
    /// The choice that the others are held against.
    pub baseline: String,
}

/// A table of verdicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// What it shows.
    pub title: String,
    /// Its rows, in the order of the arms.
    pub rows: Vec<Row>,
}

/// An arm beside its baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The arm's name.
    pub arm: String,
    /// The baseline's; the arm's own for a baseline.
    pub baseline: String,
    /// Validation loss of the arm less the baseline's, by seed, where both runs came to their end.
    pub differences: Vec<(u64, f64)>,
    /// What is known of the difference.
    pub paired: Option<Paired>,
    /// What is concluded.
    pub verdict: Verdict,
    /// What else is to be said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Contrast {
    /// The contrast on `axis` with the choice that is typed as `baseline`, or with the first arm's.
    ///
    /// # Errors
    /// When no arm has that choice.
    pub fn new(arms: &[Arm], axis: Axis, baseline: Option<&str>) -> Result<Self, ConfigError> {
        let mut choices: Vec<String> = arms.iter().map(|arm| arm.choice(axis)).collect();
        choices.dedup();
        let first = choices.first().cloned().unwrap_or_default();
        let Some(typed) = baseline else {
            let baseline = first;
            return Ok(Self { axis, baseline });
        };
        // 3e-3 and 0.003 are one learning rate.
        let same = |choice: &&String| {
            let numbers = (choice.parse::<f64>(), typed.parse::<f64>());
            choice.as_str() == typed || matches!(numbers, (Ok(a), Ok(b)) if a == b)
        };
        match choices.iter().find(same) {
            Some(choice) => Ok(Self {
                axis,
                baseline: choice.clone(),
            }),
            None => {
                let known = choices.iter().map(String::as_str);
                Err(unknown_name("baseline", typed, known))
            }
        }
    }

    /// The tables there are, each with the arms in it and what it is called.
    pub(super) fn tables(&self, arms: &[Arm], inits: &Inits) -> Vec<(String, Vec<usize>)> {
        let of = |keep: &dyn Fn(&Arm) -> bool| {
            let kept = arms.iter().enumerate().filter(|(_, arm)| keep(arm));
            kept.map(|(index, _)| index).collect()
        };
        match inits {
            Inits::Own => vec![(
                "Each placement with its own initialisation".to_string(),
                of(&|_| true),
            )],
            Inits::Common(init) => vec![(format!("All with {init} initialisation"), of(&|_| true))],
            Inits::Both(init) => vec![
                (
                    "Each placement with its own initialisation".to_string(),
                    of(&|arm| arm.own_init),
                ),
                (
                    format!("All with {init} initialisation"),
                    of(&|arm| arm.init == *init),
                ),
            ],
            Inits::Listed(_) => vec![("With each initialisation".to_string(), of(&|_| true))],
        }
    }

    /// The arm that `arm` is held against among `among`, if there is one.
    pub(super) fn baseline_of<'a>(
        &self,
        arm: &Arm,
        mut among: impl Iterator<Item = &'a Arm>,
        inits: &Inits,
    ) -> Option<&'a Arm> {
        // Each placement's own initialisation belongs to the placement, and is no difference beside it.
        let with_init = matches!(inits, Inits::Listed(_));
        let same = |other: &Arm, axis: Axis| {
            axis == self.axis
                || (axis == Axis::Init && !with_init)
                || other.choice(axis) == arm.choice(axis)
        };
        among.find(|other| {
            other.choice(self.axis) == self.baseline
                && Axis::ALL.iter().all(|(_, axis)| same(other, *axis))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::arm::Grid;
    use super::*;
    use hybridnorm_core::InitScheme;

    fn arms(inits: Inits) -> Vec<Arm> {
        let placements = ["pre", "hybrid"].map(|name| name.parse().unwrap());
        let grid = Grid {
            placements: placements.to_vec(),
            inits,
            rates: vec![1e-3, 3e-3],
            depths: vec![2, 4],
        };
        grid.arms().unwrap()
    }

    #[test]
    fn arms_are_held_against_the_one_that_differs_only_there() {
        let listed = Inits::Listed(vec![InitScheme::Normal, InitScheme::Megatron]);
        for (inits, axis, typed, arm, expected) in [
            (
                Inits::Own,
                Axis::Placement,
                None,
                "hybrid+lr=0.003+4layers",
                "pre+lr=0.003+4layers",
            ),
            (
                Inits::Own,
                Axis::Depth,
                Some("4"),
                "hybrid+lr=0.003+2layers",
                "hybrid+lr=0.003+4layers",
            ),
            (
                Inits::Own,
                Axis::LearningRate,
                Some("3e-3"),
                "pre+lr=0.001+2layers",
                "pre+lr=0.003+2layers",
            ),
            (
                listed.clone(),
                Axis::Placement,
                Some("pre"),
                "hybrid+megatron+lr=0.001+2layers",
                "pre+megatron+lr=0.001+2layers",
            ),
            (
                listed,
                Axis::Init,
                Some("megatron"),
                "pre+normal+lr=0.001+2layers",
                "pre+megatron+lr=0.001+2layers",
            ),
        ] {
            let arms = arms(inits.clone());
            let contrast = Contrast::new(&arms, axis, typed).unwrap();
            let of = arms.iter().find(|known| known.name == arm).unwrap();
            let found = contrast.baseline_of(of, arms.iter(), &inits).unwrap();
            assert_eq!(found.name, expected);
        }
    }

    #[test]
    fn an_unknown_baseline_is_refused() {
        let error = Contrast::new(&arms(Inits::Own), Axis::Placement, Some("hybird"));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("did you mean \"hybrid\"?"), "{error}");
    }

    #[test]
    fn both_initialisations_make_two_tables() {
        let inits = Inits::Both(InitScheme::Normal);
        let arms = arms(inits.clone());
        let contrast = Contrast::new(&arms, Axis::Placement, None).unwrap();
        let tables = contrast.tables(&arms, &inits);
        // Two rates and two depths of pre and hybrid in each; pre's own is the common one.
        assert_eq!(tables.len(), 2);
        assert_eq!(tables[0].1.len(), 8);
        assert_eq!(tables[1].1.len(), 8);
        let shared = tables[0]
            .1
            .iter()
            .filter(|index| tables[1].1.contains(index));
        assert_eq!(shared.count(), 4);
    }
}
