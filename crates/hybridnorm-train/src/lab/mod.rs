//! The norm lab: which placement, how deep, how hot.

pub mod compare;
pub mod probe;
mod words;
