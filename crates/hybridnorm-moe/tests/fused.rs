//! Sparse layers with kernel fusion and autotuning, on every compiled-in device; a build of its own, as in `hybridnorm-core`.

#[path = "suite/exact.rs"]
mod exact;
#[path = "suite/layer.rs"]
mod layer;
