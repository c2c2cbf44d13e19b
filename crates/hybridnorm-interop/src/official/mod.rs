//! The authors' own release (a fork of OLMo): its configuration and its state-dict names.
//!
//! Source: `dense_model/olmo/{config,model}.py` of BryceZhuo/HybridNorm, commit f0dd605; paper.md §1.3, §1.4, §3.2.

mod config;
mod names;
mod positions;

pub use config::OfficialConfig;
pub use names::name_of;
