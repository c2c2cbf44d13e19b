//! The norm lab: which placement, how deep, how hot.

pub mod probe;
