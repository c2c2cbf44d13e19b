//! How good a model is, and compared with what.

pub mod perplexity;
pub mod yardstick;
