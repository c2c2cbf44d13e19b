//! Gemma 2 and the language model of Gemma 3 (transformers 5.24, `models/{gemma2,gemma3}`).

use hybridnorm_core::{DecoderConfig, NormStyle};
use hybridnorm_moe::ModelConfig;
use serde_json::{Map, Value};

use super::architectures::Architecture;
use super::dense::{decoder, layered};
use super::fields::Fields;
use crate::error::{InteropError, unsupported};

type Model = Result<ModelConfig, InteropError>;

/// A window in layers 0, 2, 4, ..; soft caps.
pub(super) fn gemma2(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let decoder = DecoderConfig {
        attention_softcap: fields.or("attn_logit_softcapping", Some(50.0))?,
        ..gemma(fields, row)?
    };
    let decoder = DecoderConfig {
        logit_softcap: fields.or("final_logit_softcapping", Some(30.0))?,
        ..decoder
    };
    let window = fields.or("sliding_window", row.defaults.window)?;
    Ok(layered(decoder, fields, window, |layer| layer.is_multiple_of(2))?.into())
}

/// A window in all layers but each sixth, with RoPE of their own.
pub(super) fn gemma3(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    // transformers keeps these fields and never uses them: `Gemma3Attention` hands no cap to its attention function.
    let _: Option<f64> = fields.get("attn_logit_softcapping")?;
    let _: Option<usize> = fields.get("_sliding_window_pattern")?;
    let decoder = DecoderConfig {
        logit_softcap: fields.get("final_logit_softcapping")?,
        ..gemma(fields, row)?
    };
    let pattern: usize = fields.or("sliding_window_pattern", 6)?;
    if pattern == 0 {
        return unsupported(&fields.path("sliding_window_pattern"), 0, "from 1");
    }
    let window = fields.or("sliding_window", row.defaults.window)?;
    let is_local = |layer: usize| !(layer + 1).is_multiple_of(pattern);
    Ok(layered(decoder, fields, window, is_local)?.into())
}

/// The `text_config` of a model that sees.
pub(super) fn gemma3_multimodal(fields: &Fields<'_>, row: &'static Architecture) -> Model {
    let text: Map<String, Value> = fields.or("text_config", Map::new())?;
    for field in EYES {
        let _: Option<Value> = fields.get(field)?;
    }
    let text = Fields::new(&text, "text_config.");
    let tied: Option<bool> = fields.get("tie_word_embeddings")?;
    let mut model = gemma3(&text, row)?;
    text.finish()?;
    if let Some(tied) = tied {
        model.decoder.tied = tied;
    }
    if !model.decoder.tied {
        let reason = "the head of Gemma 3 is its embedding";
        return unsupported("tie_word_embeddings", false, reason);
    }
    Ok(model)
}

/// Fields about images, and the tokens that stand for them.
const EYES: [&str; 9] = [
    "vision_config",
    "mm_tokens_per_image",
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "boi_token_id",
    "eoi_token_id",
    "image_token_id",
    "vision_use_head",
];

/// What both share: norms of `1 + weight`, an embedding times √`hidden_size`, scores by `query_pre_attn_scalar`.
fn gemma(fields: &Fields<'_>, row: &'static Architecture) -> Result<DecoderConfig, InteropError> {
    let reason = "attention is causal here";
    fields.only("use_bidirectional_attention", false.into(), reason)?;
    // The name in Gemma's first files; `hidden_activation` is what counts.
    let _: Option<String> = fields.get("hidden_act")?;
    let scalar: f64 = fields.or("query_pre_attn_scalar", 256.0)?;
    let decoder = decoder(fields, row, "hidden_activation")?;
    // In transformers it is a number of the type that is computed in, which is f32 here.
    let scale = (decoder.d_model as f64).sqrt() as f32;
    Ok(DecoderConfig {
        norm: NormStyle {
            unit_offset: true,
            ..decoder.norm
        },
        embedding_scale: Some(scale.into()),
        softmax_scale: Some(scalar.powf(-0.5)),
        ..decoder
    })
}
