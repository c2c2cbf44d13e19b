//! The authors' own release (forks of OLMo and OLMoE): its configuration and its state-dict names.
//!
//! Source: `{dense_model,MoE_model}/olmo/{config,model}.py` of BryceZhuo/HybridNorm, commit f0dd605, and megablocks, branch `olmoe`;
//! paper.md §1.3, §1.4, §3.2, §3.8.

mod config;
pub(crate) mod keys;
mod names;
mod positions;
mod release;
mod sparse;
mod yaml;

pub use config::OfficialConfig;
pub use names::names;
pub(crate) use release::{config_of, import};
