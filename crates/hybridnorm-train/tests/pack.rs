//! Every test that computes on a device, of every crate, in one binary: what `cargo xtask gpu` carries to a machine with a GPU, where
//! a binary for each crate would be a gigabyte. The files are those of the suites; nothing is listed here but their names.

#[path = "../../hybridnorm-kernels/tests/adamw.rs"]
mod adamw;
#[path = "../../hybridnorm-core/tests/suite/attention.rs"]
mod attention;
#[path = "../../hybridnorm-moe/tests/suite/capacity.rs"]
mod capacity;
#[path = "../../hybridnorm-moe/tests/suite/degenerate.rs"]
mod degenerate;
#[path = "../../hybridnorm-moe/tests/suite/exact.rs"]
mod exact;
#[path = "verify/injected.rs"]
mod injected;
#[path = "../../hybridnorm-moe/tests/suite/layer.rs"]
mod layer;
#[path = "../../hybridnorm-core/tests/suite/loss.rs"]
mod loss;
#[path = "../../hybridnorm-moe/tests/suite/losses.rs"]
mod losses;
#[path = "../../hybridnorm-core/tests/suite/model.rs"]
mod model;
#[path = "../../hybridnorm-core/tests/suite/norm.rs"]
mod norm;
#[path = "../../hybridnorm-kernels/tests/operations.rs"]
mod operations;
#[path = "verify/parity.rs"]
mod parity;
#[path = "../../hybridnorm-core/tests/suite/portability.rs"]
mod portability;
#[path = "../../hybridnorm-core/tests/suite/reference_run.rs"]
mod reference_run;
#[path = "../../hybridnorm-moe/tests/suite/repair.rs"]
mod repair;
#[path = "engine/resume.rs"]
mod resume;
#[path = "../../hybridnorm-moe/tests/suite/model.rs"]
mod sparse_model;
#[path = "engine/tiny.rs"]
mod tiny;
