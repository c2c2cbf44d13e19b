//! The training recipe (paper.md §3.3) and its rivals: parameter groups, optimisers, learning-rate schedules, global-norm
//! clipping. `docs/recipe.md` shows every name.

mod adamw;
mod clip;
mod config;
mod groups;
mod muon;
mod names;
mod optimizer;
mod schedule;
mod update;

pub use adamw::AdamWConfig;
pub use clip::{GradientNorms, clip_coefficient};
pub use config::{Clip, ClipWarmup, OptimizerConfig, OptimizerName};
pub use groups::{GroupRule, ParamInfo, ParamKind, params};
pub use muon::{MuonConfig, MuonScale, orthogonalize};
pub use optimizer::{Moments, Optimizer};
pub use schedule::{Decay, DecayShape, Schedule, ScheduleShape};
pub use update::{Moved, Movement, ParamGroup, Update, UpdateRatios};
