//! Learning rate as a function of the tokens (or steps) seen.

use serde::{Deserialize, Serialize};

use super::names::named;

/// How the learning rate falls after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
    /// The peak, then a decay down to the floor at the end (warm-up, stable, decay).
    Wsd,
}

named! { ScheduleShape, "schedule.shape":
    "cosine" Cosine "half a cosine down to the floor, as in the paper",
    "linear" Linear "a straight line down to the floor",
    "inverse-sqrt" InverseSqrt "peak·√(warm-up / t), without a floor",
    "constant" Constant "the peak until the end",
    "cosine-linear" CosineLinear "the cosine multiplied by the straight line",
    "wsd" Wsd "the peak, then down to the floor in the last part of the run (MiniCPM, arXiv 2404.06395)",
}

/// How the last part of a `wsd` schedule falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DecayShape {
    /// A straight line.
    Linear,
    /// One minus the root of the part that is done.
    #[default]
    OneMinusSqrt,
}

named! { DecayShape, "schedule.decay.shape":
    "linear" Linear "a straight line",
    "1-sqrt" OneMinusSqrt "1 − √(part done), which arXiv 2405.18392 found better than a line",
}

/// The last part of a `wsd` schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Decay {
    /// Its share of the whole run.
    pub fraction: f64,
    /// How it falls.
    pub shape: DecayShape,
}

impl Default for Decay {
    fn default() -> Self {
        Self {
            fraction: 0.2,
            shape: DecayShape::OneMinusSqrt,
        }
    }
}

impl Decay {
    /// What is left of the way down at time `t` of `total`: 1 before the decay begins, 0 at the end.
    fn left(&self, t: u64, total: u64) -> f64 {
        let length = self.fraction * total as f64;
        let done = 1.0 - total.saturating_sub(t) as f64 / length;
        match (done > 0.0, self.shape) {
            (false, _) => 1.0,
            (true, DecayShape::Linear) => 1.0 - done,
            (true, DecayShape::OneMinusSqrt) => 1.0 - done.sqrt(),
        }
    }
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
    /// The last part, where the shape is [`ScheduleShape::Wsd`].
    pub decay: Decay,
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
            ScheduleShape::Wsd => floor + (peak - floor) * self.decay.left(t, self.total),
        }
    }
}
