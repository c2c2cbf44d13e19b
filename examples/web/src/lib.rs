//! A page that runs an exported model: what `hybridnorm-train generate` runs, compiled to WebAssembly, and pictures of its blocks.
//!
//! `cargo xtask web` builds it; `docs/web.md` says how. The page itself is in `page/`. What it shows and what it computes come from here:
//! [`picture`] draws a placement from its own records, and the model, its sampling and its tokenizer are those of every other program.

#[cfg(target_arch = "wasm32")]
mod browser;
pub mod picture;
