//! The library as a whole, on every compiled-in device: one binary, since each links all of Burn.

mod attention;
mod cache;
mod loss;
mod model;
mod norm;
mod options;
mod portability;
mod probe;
mod readme;
mod reference_run;
mod small;
