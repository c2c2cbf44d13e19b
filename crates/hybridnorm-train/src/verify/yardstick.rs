//! The yardstick of a verification: where it comes from, what it measures, and the work beyond the reference's tiny models.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData, TensorReadError};
use hybridnorm_core::{ConfigError, Decoder};
use hybridnorm_device::DeviceSpec;
use hybridnorm_interop::{Array, official};
use hybridnorm_moe::{FeedForwardLayer, ModelConfig};

use super::check::largest_difference;
use super::record::{Record, Step, TrajectoryWork, Work, record};
use super::routing::same;
use crate::presets;
use crate::recipe::{AdamWConfig, Decay, Schedule, ScheduleShape};

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
    let model = |name| presets::find(name).map(|preset| (name, preset.model));
    Ok([model("demo")?, model("moe-demo")?])
}

/// Sizes at which kernels take the paths that the reference's models are too small for: sequences that are no multiple of any tile.
///
/// A step of a sparse model takes a software adapter some seconds, and all of them run the same kernels: a few will do.
pub fn work(config: &ModelConfig) -> Work {
    let steps = if config.sparse.is_some() { 5 } else { 20 };
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
            batches: tokens(1_000, vec![steps, batch, seq]),
            optimizer: AdamWConfig::default(),
            schedule: Schedule {
                shape: ScheduleShape::Cosine,
                peak,
                floor: 0.1,
                warmup_from: 0.0,
                warmup: 5,
                total: steps as u64,
                decay: Decay::default(),
            },
            keep: vec![1, steps as u64],
        }),
    }
}

type Model = Decoder<FeedForwardLayer>;

/// What the yardstick computed of one piece of work.
#[derive(Debug)]
pub struct Yardstick {
    /// In f32: as it is, and from parameters a rounding away.
    pub(super) single: Vec<Record>,
    /// In f64.
    pub(super) double: Record,
}

impl Yardstick {
    /// Computes `work` on `device`, an autodiff device; `model` builds the model there.
    ///
    /// # Errors
    /// When the model cannot be built or the device fails.
    pub fn measure<E: From<TensorReadError>>(
        work: &Work,
        device: &Device,
        model: impl Fn(&Device) -> Result<Model, E>,
    ) -> Result<Self, E> {
        /// Runs whose parameters are a rounding away.
        const NEIGHBOURS: u32 = 3;
        let mut single = vec![record(model(device)?, work, device)?];
        for seed in 1..=NEIGHBOURS {
            single.push(record(a_rounding_away(model(device)?, seed), work, device)?);
        }
        Ok(Self {
            single,
            double: record(in_f64(model(device)?), work, device)?,
        })
    }

    /// The f32 runs whose routers chose as those of the f64 run, in the forward pass.
    pub(super) fn forward(&self) -> Vec<&Record> {
        let runs = self.single.iter();
        runs.filter(|run| same(&run.routing, &self.double.routing))
            .collect()
    }

    /// The f32 runs, each with the number of steps before its routers chose otherwise.
    pub(super) fn trajectories(&self) -> Vec<(&Record, usize)> {
        let agreed = |run: &Record| {
            let pairs = run.steps.iter().zip(&self.double.steps);
            pairs
                .take_while(|(a, b)| same(&a.routing, &b.routing))
                .count()
        };
        self.single.iter().map(|run| (run, agreed(run))).collect()
    }
}

/// The most that any of `runs` is off from `exact`.
pub(super) fn own<'a>(
    runs: impl IntoIterator<Item = &'a Record>,
    exact: &Array,
    of: impl Fn(&'a Record) -> Option<&'a Array>,
) -> f64 {
    let errors = runs.into_iter().filter_map(of);
    let errors = errors.map(|single| largest_difference(&single.values, &exact.values));
    errors.fold(0.0, f64::max)
}

/// The same model with f64 parameters.
fn in_f64(model: Model) -> Model {
    struct ToF64;
    impl ModuleMapper for ToF64 {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| Tensor::from_inner(x.inner().cast(FloatDType::F64)).require_grad())
        }
    }
    model.map(&mut ToF64)
}

/// The same model with every parameter moved up or down by one unit in the last place, as a hash of its index says.
fn a_rounding_away(model: Model, seed: u32) -> Model {
    struct Nudge(u32);
    impl ModuleMapper for Nudge {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|x| {
                let x = x.inner();
                let hash = |i: u32| (i ^ self.0.rotate_left(16)).wrapping_mul(0x9e37_79b1) >> 31;
                let unit = |i| 1.0 + f32::EPSILON * if hash(i) == 0 { 1.0 } else { -1.0 };
                let factors: Vec<f32> = (0..x.shape().num_elements() as u32).map(unit).collect();
                let factors = Tensor::from_data(TensorData::new(factors, x.shape()), &x.device());
                Tensor::from_inner(x * factors).require_grad()
            })
        }
    }
    model.map(&mut Nudge(seed))
}

/// The most that a number of any step is off, in the steps in which the runs agree with f64.
pub(super) fn own_along(runs: &[(&Record, usize)], double: &Record, of: fn(&Step) -> f64) -> f64 {
    let errors = runs.iter().flat_map(|(run, agreed)| {
        let pairs = run.steps.iter().zip(&double.steps).take(*agreed);
        pairs.map(move |(a, b)| (of(a) - of(b)).abs())
    });
    errors.fold(0.0, f64::max)
}
