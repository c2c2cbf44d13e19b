//! The library as a whole, on every compiled-in device: one binary, since each links all of Burn.

mod capacity;
mod degenerate;
mod exact;
mod layer;
mod losses;
mod model;
mod repair;
