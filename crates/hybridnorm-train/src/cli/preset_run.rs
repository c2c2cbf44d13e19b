//! What a run of a preset is, before flags.

use crate::guard::GuardConfig;
use crate::presets::Preset;
use crate::recipe::OptimizerConfig;
use crate::run::{DataConfig, EvaluationConfig, RunConfig, ScheduleConfig, TrainingConfig};

/// The preset of a run that names none.
pub(super) const DEFAULT_PRESET: &str = "demo";
/// Its sparse sibling.
const SPARSE_DEMO: &str = "moe-demo";
/// The paper's sparse model.
const SPARSE_PUBLISHED: &str = "moe-1b-7b";
/// About four minutes on two cores with `demo` (`hybridnorm-train` without arguments shows it).
const DEMO_STEPS: u64 = 500;
/// High, since the model is small and the run short.
const DEMO_LR: f64 = 2e-3;

/// A run of `preset` with the training settings of the demo, but for the learning rate, which large models want lower.
pub(super) fn preset_run(preset: &Preset) -> RunConfig {
    let mut run = RunConfig {
        data: DataConfig::default(),
        evaluation: EvaluationConfig::default(),
        training: TrainingConfig {
            steps: DEMO_STEPS,
            ..TrainingConfig::default()
        },
        guard: GuardConfig::default(),
        schedule: ScheduleConfig::default(),
        optimizer: OptimizerConfig::default(),
        model: preset.model.decoder.clone(),
        sparse: preset.model.sparse.clone(),
    };
    match preset.name {
        DEFAULT_PRESET | SPARSE_DEMO => run.schedule.lr = DEMO_LR,
        SPARSE_PUBLISHED => {
            // The sparse column of the paper's Table 10, 4e-4 down to 5e-5; the embedding decays in the released configuration.
            (run.schedule.lr, run.schedule.floor) = (4e-4, 0.125);
            run.optimizer.adamw.decay_embeddings = true;
        }
        _ => {}
    }
    run
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::presets;

    #[test]
    fn every_preset_makes_a_valid_run() {
        for preset in presets::all() {
            preset_run(&preset).validate().unwrap();
        }
    }

    #[test]
    fn sparse_presets_have_their_own_recipes() {
        let run = |name| preset_run(&presets::find(name).unwrap());
        assert_eq!(run(SPARSE_DEMO).schedule, run(DEFAULT_PRESET).schedule);
        let published = run(SPARSE_PUBLISHED);
        assert_eq!(published.schedule.lr, 4e-4);
        assert!((published.schedule.lr * published.schedule.floor - 5e-5).abs() < 1e-18);
        assert!(published.optimizer.adamw.decay_embeddings);
        assert_eq!(run("1.2b").schedule.lr, 3e-4);
        assert!(!run("1.2b").optimizer.adamw.decay_embeddings);
    }
}
