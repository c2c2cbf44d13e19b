//! Where the yardstick of a verification comes from, and the work beyond the reference's tiny models.

use burn::tensor::Device;
use hybridnorm_core::ConfigError;
use hybridnorm_device::DeviceSpec;
use hybridnorm_interop::{Array, official};
use hybridnorm_moe::ModelConfig;

use super::record::{TrajectoryWork, Work};
use crate::recipe::{AdamWConfig, Schedule, ScheduleShape};

/// The device that others are held against.
pub const YARDSTICK: &str = "flex";

/// `flex`, where it is compiled in.
pub fn device() -> Option<Device> {
    let spec: DeviceSpec = YARDSTICK.parse().ok()?;
    spec.open().ok().map(Device::autodiff)
}

/// The models beyond the reference's tiny ones: `demo`, and of the sparse ones `moe-demo`.
///
/// # Errors
/// When there is no such preset.
pub fn presets() -> Result<[(&'static str, ModelConfig); 2], ConfigError> {
    let sparse = hybridnorm_moe::PRESETS.iter();
    let sparse = sparse.filter(|preset| preset.name == "moe-demo");
    let sparse = sparse.map(|preset| preset.config()).next();
    let missing = || ConfigError::new("preset", "moe-demo", "a preset");
    let dense = hybridnorm_core::presets::find("demo")?.config();
    Ok([
        ("demo", dense.into()),
        ("moe-demo", sparse.ok_or_else(missing)?),
    ])
}

/// Sizes at which kernels take the paths that the reference's models are too small for: sequences that are no multiple of any tile.
pub fn work(config: &ModelConfig) -> Work {
    const STEPS: usize = 20;
    let [batch, seq] = [2, 129];
    let vocab = config.decoder.vocab_size;
    let tokens = |first: usize, shape: Vec<usize>| {
        let count: usize = shape.iter().product();
        // Any fixed sequence will do, as long as no token dominates.
        let token = |i: usize| ((first + i) * (first + i) * 31 + (first + i) * 7) % vocab;
        let values = (0..count).map(|i| token(i) as f64).collect();
        Array { shape, values }
    };
    let peak = 1e-3;
    let sparse = config.sparse.as_ref();
    let auxiliary = sparse.map(|sparse| sparse.losses.clone());
    Work {
        tokens: tokens(0, vec![batch, seq]),
        auxiliary: auxiliary.unwrap_or_default(),
        names: official::names(),
        trajectory: Some(TrajectoryWork {
            batches: tokens(1_000, vec![STEPS, batch, seq]),
            optimizer: AdamWConfig::default(),
            schedule: Schedule {
                shape: ScheduleShape::Cosine,
                peak,
                floor: 0.1,
                warmup_from: 0.0,
                warmup: 5,
                total: STEPS as u64,
            },
            keep: vec![1, STEPS as u64],
        }),
    }
}
