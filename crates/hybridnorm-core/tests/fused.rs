//! Kernel fusion and autotuning, on every compiled-in device. They are compiled in or not, so this is a build of its own: on a
//! software adapter the first step takes minutes with them, and the rest of the suite runs without.

#[path = "suite/reference_run.rs"]
mod reference_run;

use burn::tensor::{Device, FloatDType};
use hybridnorm_testing::{
    apply, cast, every_device, largest, largest_difference, open, parameters,
};
use reference_run::{assert_within, config, descend, step, step_in_f64};

const F32: f64 = 1.0 / (1 << 24) as f64;
const ROUNDINGS: f64 = 64.0;

#[apply(every_device!)]
fn fused_and_tuned_kernels_compute_the_same(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let model = config().init(&device).unwrap();
    let found = step(&model, 3, 7, &device);
    assert_within(&found, &step_in_f64(&config(), 3, 7), F32, ROUNDINGS);

    // The second step runs kernels that the first one has fused and tuned.
    let flex = open("flex").clone().autodiff();
    let exact = cast(config().init(&flex).unwrap(), FloatDType::F64);
    let found = (0..3).fold(model, |model, _| descend(model, 3, 7, &device));
    let exact = (0..3).fold(exact, |model, _| descend(model, 3, 7, &flex));
    let (found, exact) = (parameters(&found), parameters(&exact));
    for (name, exact) in &exact {
        let error = largest_difference(&found[name], exact) / (F32 * largest(exact));
        assert!(error < ROUNDINGS, "{name}: {error:.0} roundings");
    }
}
