//! The sizes of a model that is measured, flag by flag.

use clap::Args;
use hybridnorm_core::{ConfigError, Placement};
use hybridnorm_moe::{ModelConfig, SparseConfig};

use super::flags::{MODEL, one_placement, one_preset};
use crate::bench::StepBench;
use crate::error::Error;
use crate::presets;

/// Widths of a model, each over that of its preset.
#[derive(Debug, Clone, Default, Args)]
pub struct WidthFlags {
    /// Width of the stream [default: the preset's]
    #[arg(long, help_heading = MODEL, value_name = "N")]
    pub(super) d_model: Option<usize>,
    /// Query heads [default: the preset's]
    #[arg(long, help_heading = MODEL, value_name = "N")]
    heads: Option<usize>,
    /// Key/value heads [default: the preset's; without one, --heads]
    #[arg(long, help_heading = MODEL, value_name = "N")]
    kv_heads: Option<usize>,
    /// Inner width of the feed-forward layer, of each expert in a sparse model [default: the preset's]
    #[arg(long, help_heading = MODEL, value_name = "N")]
    ffn: Option<usize>,
}

impl WidthFlags {
    /// Puts them over a model; where it `is_no_preset`, key/value heads follow the query heads.
    pub(super) fn overlay(&self, model: &mut ModelConfig, is_no_preset: bool) {
        let ModelConfig { decoder, sparse } = model;
        let key_value = self.kv_heads.or(self.heads.filter(|_| is_no_preset));
        for (field, flag) in [
            (&mut decoder.d_model, self.d_model),
            (&mut decoder.n_heads, self.heads),
            (&mut decoder.n_kv_heads, key_value),
            (&mut decoder.d_ff, self.ffn),
        ] {
            *field = flag.unwrap_or(*field);
        }
        if let Some(sparse) = sparse {
            sparse.d_ff = self.ffn.unwrap_or(sparse.d_ff);
        }
    }
}

/// A preset, and what is changed of it; without one, the sizes of [`StepBench`].
#[derive(Debug, Clone, Args)]
pub struct ShapeFlags {
    /// Sizes of the model, each of which a flag overrides
    #[arg(long, help_heading = MODEL, value_name = "NAME", help = preset_help())]
    preset: Option<String>,
    /// Blocks [default: the preset's]
    #[arg(long, help_heading = MODEL, value_name = "N")]
    layers: Option<usize>,
    #[command(flatten)]
    widths: WidthFlags,
    /// Experts in each feed-forward layer, with --top-k unless a sparse preset has it [default: the preset's]
    #[arg(long, help_heading = MODEL, value_name = "N")]
    experts: Option<usize>,
    /// Experts for each token
    #[arg(long, help_heading = MODEL, value_name = "N")]
    top_k: Option<usize>,
    /// Rows of the embedding, from all of which tokens are drawn [default: the preset's]
    #[arg(long, help_heading = MODEL, value_name = "N")]
    vocab: Option<usize>,
    /// The head shares the embedding's weights [default: it has its own, or is as the preset says]
    #[arg(long, help_heading = MODEL)]
    tied: bool,
    /// Where the norms stand
    #[arg(long, help_heading = MODEL, value_name = "NAME", help = placement_help())]
    placement: Option<String>,
}

impl ShapeFlags {
    /// The preset's model, or the default one of [`StepBench`], with the flags over it, for sequences of up to `seq` tokens; and the
    /// preset's name.
    pub(super) fn resolve(&self, seq: usize) -> Result<(ModelConfig, Option<&'static str>), Error> {
        let preset = self.preset.as_deref().map(presets::find).transpose()?;
        let mut shape = match &preset {
            Some(preset) => preset.model.clone(),
            None => StepBench::default().model,
        };
        self.widths.overlay(&mut shape, preset.is_none());
        let ModelConfig {
            decoder: mut model,
            mut sparse,
        } = shape;
        model.n_layers = self.layers.unwrap_or(model.n_layers);
        if let Some(vocab) = self.vocab {
            (model.vocab_size, model.padded_vocab_size) = (vocab, vocab);
        }
        match (&mut sparse, self.experts, self.top_k) {
            (Some(sparse), experts, top_k) => {
                let router = &mut sparse.router;
                router.n_experts = experts.unwrap_or(router.n_experts);
                router.top_k = top_k.unwrap_or(router.top_k);
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
    let ModelConfig { decoder, .. } = StepBench::default().model;
    one_preset("Sizes of the model, each of which a flag overrides")
        + &format!(
            " [default: none, which is {} layers of width {}, {} heads, feed-forward width {}, vocabulary {}]",
            decoder.n_layers, decoder.d_model, decoder.n_heads, decoder.d_ff, decoder.vocab_size
        )
}

fn placement_help() -> String {
    one_placement("Where the norms stand (see `placements`)")
        + &format!(" [default: {}, or the preset's]", Placement::default())
}
