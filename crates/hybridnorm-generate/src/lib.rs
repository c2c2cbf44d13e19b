//! Text from a model: a key/value cache, sampling, several texts side by side, stop strings, chat templates, and streaming that never
//! cuts a character in two.
//!
//! A crate of its own, because a model writes where nothing is trained too: `hybridnorm-train generate` and a page in a browser
//! (`examples/web`) run this code. What waits for the device comes twice, as [`Generator::run`] and as [`Generator::run_async`]: a browser
//! lets nobody wait for a GPU.

#![warn(missing_docs)]

mod chat;
mod edges;
mod error;
mod generator;
mod greedy;
mod sampling;
mod stop;
mod stream;
mod texts;
mod vocabulary;

pub use chat::{ChatTemplate, Message};
pub use edges::{Edges, ids};
pub use error::GenerateError;
pub use generator::{Ending, Event, Generator, Report, Settings};
pub use greedy::greedy;
pub use sampling::{Sampler, Sampling, argmax};
pub use texts::Texts;
pub use vocabulary::fits;

#[cfg(test)]
mod tests;
