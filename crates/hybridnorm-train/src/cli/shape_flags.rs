//! The sizes of a model that is measured, flag by flag.

use clap::Args;
use hybridnorm_core::{ConfigError, PLACEMENTS, Placement};
use hybridnorm_moe::{ModelConfig, SparseConfig};

use super::flags::one_of;
use crate::bench::StepBench;
use crate::error::Error;
use crate::presets;

/// A preset, and what is changed of it; without one, the sizes of [`StepBench`].
#[derive(Debug, Clone, Args)]
pub struct ShapeFlags {
    /// Sizes of the model
    #[arg(long, value_name = "NAME", help = preset_help())]
    preset: Option<String>,
    /// Width of the stream [default: 256, or the preset's]
    #[arg(long, value_name = "N")]
    d_model: Option<usize>,
    /// Blocks [default: 4, or the preset's]
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Query heads [default: 8, or the preset's]
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Key/value heads [default: --heads, or the preset's]
    #[arg(long, value_name = "N")]
    kv_heads: Option<usize>,
    /// Inner width of the feed-forward layer, of each expert in a sparse model [default: 1024, or the preset's]
    #[arg(long, value_name = "N")]
    ffn: Option<usize>,
    /// Experts in each feed-forward layer, with --top-k unless a sparse preset has it [default: none, or the preset's]
    #[arg(long, value_name = "N")]
    experts: Option<usize>,
    /// Experts for each token
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Rows of the embedding, from all of which tokens are drawn [default: 4096, or the preset's]
    #[arg(long, value_name = "N")]
    vocab: Option<usize>,
    /// The head shares the embedding's weights [default: it has its own, or is as the preset says]
    #[arg(long)]
    tied: bool,
    /// Where the norms stand
    #[arg(long, value_name = "NAME", help = placement_help())]
    placement: Option<String>,
}

impl ShapeFlags {
    /// The preset's model, or the default one of [`StepBench`], with the flags over it, for sequences of up to `seq` tokens; and the
    /// preset's name.
    pub(super) fn resolve(&self, seq: usize) -> Result<(ModelConfig, Option<&'static str>), Error> {
        let preset = self.preset.as_deref().map(presets::find).transpose()?;
        let ModelConfig {
            decoder: mut model,
            mut sparse,
        } = match &preset {
            Some(preset) => preset.model.clone(),
            None => StepBench::default().model,
        };
        if let (None, Some(heads)) = (&preset, self.heads) {
            model.n_kv_heads = heads;
        }
        for (field, flag) in [
            (&mut model.d_model, self.d_model),
            (&mut model.n_layers, self.layers),
            (&mut model.n_heads, self.heads),
            (&mut model.n_kv_heads, self.kv_heads),
            (&mut model.d_ff, self.ffn),
            (&mut model.vocab_size, self.vocab),
            (&mut model.padded_vocab_size, self.vocab),
        ] {
            *field = flag.unwrap_or(*field);
        }
        match (&mut sparse, self.experts, self.top_k) {
            (Some(sparse), experts, top_k) => {
                let router = &mut sparse.router;
                router.n_experts = experts.unwrap_or(router.n_experts);
                router.top_k = top_k.unwrap_or(router.top_k);
                sparse.d_ff = self.ffn.unwrap_or(sparse.d_ff);
            }
            (None, Some(experts), Some(top_k)) => {
                sparse = Some(SparseConfig::new(experts, top_k, model.d_ff));
            }
            (None, None, None) => {}
            (None, Some(experts), None) => {
                let allowed = "together with --top-k, the experts for each token";
                return Err(ConfigError::new("experts", experts, allowed).into());
            }
            (None, None, Some(top_k)) => {
                let allowed = "together with --experts, or with a sparse --preset";
                return Err(ConfigError::new("top_k", top_k, allowed).into());
            }
        }
        model.tied |= self.tied;
        if let Some(name) = &self.placement {
            model.placement = name.parse()?;
        }
        // Positions are rotations, so a model takes any length.
        model.max_seq_len = model.max_seq_len.max(seq);
        let model = ModelConfig {
            decoder: model,
            sparse,
        };
        Ok((model, preset.map(|preset| preset.name)))
    }
}

fn preset_help() -> String {
    let what = "Sizes of the model, each of which a flag overrides";
    one_of(what, presets::names()) + " [default: none, the sizes below]"
}

fn placement_help() -> String {
    let names = PLACEMENTS.iter().map(|row| row.name);
    one_of("Where the norms stand (see `placements`)", names)
        + &format!(" [default: {}, or the preset's]", Placement::default())
}
