//! Benchmarks of single operations and layers, by [Criterion](https://docs.rs/criterion), on the best device compiled in.
//!
//! `cargo bench -p hybridnorm-benches --features flex [--bench bandwidth|products|layer] [-- FILTER]`; `cargo xtask bench` measures whole training
//! steps beside PyTorch's.
//!
//! A package of its own, whose features bring Criterion: as a dependency of tests it would change a feature of a crate below Burn, and every
//! test run would build Burn a second time.
#![cfg(feature = "criterion")]
#![warn(missing_docs)]

mod bandwidth;
mod layer;
mod products;
mod series;

pub use bandwidth::run as bandwidth;
pub use layer::run as layer;
pub use products::run as products;
