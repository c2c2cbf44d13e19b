//! Every test that computes on a device, of every crate, in one binary: what `cargo xtask gpu` carries to a machine with a GPU, where
//! a binary for each crate would be a gigabyte. The files are those of the suites; nothing is listed here but their names.

#[path = "../../hybridnorm-core/tests/suite/attention.rs"]
mod attention;
#[path = "verify/injected.rs"]
mod injected;
#[path = "../../hybridnorm-core/tests/suite/loss.rs"]
mod loss;
#[path = "../../hybridnorm-core/tests/suite/model.rs"]
mod model;
#[path = "../../hybridnorm-core/tests/suite/norm.rs"]
mod norm;
#[path = "verify/parity.rs"]
mod parity;
#[path = "../../hybridnorm-core/tests/suite/portability.rs"]
mod portability;
#[path = "../../hybridnorm-core/tests/suite/reference_run.rs"]
mod reference_run;
#[path = "engine/resume.rs"]
mod resume;
#[path = "engine/tiny.rs"]
mod tiny;
