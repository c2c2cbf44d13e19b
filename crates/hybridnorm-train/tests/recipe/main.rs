//! The recipe by itself: optimisers against PyTorch and closed forms, schedules, clipping, the documentation's tables.

mod docs;
mod muon;
mod names;
mod schedule;
mod update;
