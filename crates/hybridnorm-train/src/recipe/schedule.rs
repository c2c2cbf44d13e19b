//! Learning rate as a function of the tokens (or steps) seen.

use serde::{Deserialize, Serialize};

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleShape {
    /// Half a cosine down to the floor. The paper's choice.
    #[default]
    Cosine,
    /// A straight line down to the floor.
    Linear,
    /// peak·√(warmup / t), without a floor.
    InverseSqrt,
    /// The peak for ever.
    Constant,
    /// The cosine multiplied by the straight line.
    CosineLinear,
}

/// A learning-rate schedule with linear warm-up (`optim.py` of the reference). Its unit of time is whatever
/// `warmup` and `total` are counted in: tokens in a training run, steps in the reference trajectories.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// How it falls.
    pub shape: ScheduleShape,
    /// Highest learning rate, reached at the end of the warm-up.
    pub peak: f64,
    /// Lowest learning rate, as a share of the peak.
    pub floor: f64,
    /// Learning rate at time 0. The reference takes a tenth of the peak where it names none.
    pub warmup_from: f64,
    /// Length of the warm-up.
    pub warmup: u64,
    /// End of the schedule, counted from the start of the run.
    pub total: u64,
}

impl Schedule {
    /// The learning rate at time `t`. The first optimiser step of a run stands at one step's worth, not at 0.
    pub fn at(&self, t: u64) -> f64 {
        let (peak, floor) = (self.peak, self.floor * self.peak);
        if t < self.warmup {
            let from = self.warmup_from;
            return from + (peak - from) * t as f64 / self.warmup as f64;
        }
        if t >= self.total
            && !matches!(
                self.shape,
                ScheduleShape::InverseSqrt | ScheduleShape::Constant
            )
        {
            return floor;
        }
        let done = (t - self.warmup) as f64 / self.total.saturating_sub(self.warmup) as f64;
        let cosine = (1.0 + (core::f64::consts::PI * done).cos()) / 2.0;
        match self.shape {
            ScheduleShape::Cosine => floor + (peak - floor) * cosine,
            ScheduleShape::Linear => peak - (peak - floor) * done,
            ScheduleShape::InverseSqrt => {
                peak * (self.warmup as f64 / (t.max(self.warmup).max(1)) as f64).sqrt()
            }
            ScheduleShape::Constant => peak,
            ScheduleShape::CosineLinear => floor + (1.0 - done) * (peak - floor) * cosine,
        }
    }
}
