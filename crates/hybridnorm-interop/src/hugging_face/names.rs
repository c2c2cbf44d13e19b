//! The names in `model.safetensors`, table by table.

use crate::names::{NameRow, Theirs};

pub(super) const fn row(ours: &'static str, theirs: Theirs) -> NameRow {
    NameRow { ours, theirs }
}

use Theirs::{Each, Linear, QueryKeyValue, Same, ValueGate};

/// Everything but the norms around sublayers and the feed-forward layers.
pub(super) const MODEL: &[NameRow] = &[
    row("embedding", Same("model.embed_tokens")),
    row("final_norm", Same("model.norm")),
    row("head", Linear("lm_head")),
    row(
        "blocks.*.attention.qkv",
        QueryKeyValue([
            "model.layers.*.self_attn.q_proj",
            "model.layers.*.self_attn.k_proj",
            "model.layers.*.self_attn.v_proj",
        ]),
    ),
    row(
        "blocks.*.attention.output",
        Linear("model.layers.*.self_attn.o_proj"),
    ),
    row(
        "blocks.*.attention.norms.query.norm",
        Same("model.layers.*.self_attn.q_norm"),
    ),
    row(
        "blocks.*.attention.norms.key.norm",
        Same("model.layers.*.self_attn.k_norm"),
    ),
];

/// Norms before the sublayers.
pub(super) const PRE: &[NameRow] = &[
    row(
        "blocks.*.attention_residual.input",
        Same("model.layers.*.input_layernorm"),
    ),
    row(
        "blocks.*.feed_forward_residual.input",
        Same("model.layers.*.post_attention_layernorm"),
    ),
];

/// OLMo 2's norms, on the sublayers' outputs.
pub(super) const OUTPUT: &[NameRow] = &[
    row(
        "blocks.*.attention_residual.output",
        Same("model.layers.*.post_attention_layernorm"),
    ),
    row(
        "blocks.*.feed_forward_residual.output",
        Same("model.layers.*.post_feedforward_layernorm"),
    ),
];

/// Gemma's norms, before and behind the sublayers.
pub(super) const SANDWICH: &[NameRow] = &[
    row(
        "blocks.*.attention_residual.input",
        Same("model.layers.*.input_layernorm"),
    ),
    row(
        "blocks.*.attention_residual.output",
        Same("model.layers.*.post_attention_layernorm"),
    ),
    row(
        "blocks.*.feed_forward_residual.input",
        Same("model.layers.*.pre_feedforward_layernorm"),
    ),
    row(
        "blocks.*.feed_forward_residual.output",
        Same("model.layers.*.post_feedforward_layernorm"),
    ),
];

/// A dense feed-forward layer.
pub(super) const DENSE: &[NameRow] = &[
    row(
        "blocks.*.feed_forward.input",
        ValueGate(["model.layers.*.mlp.up_proj", "model.layers.*.mlp.gate_proj"]),
    ),
    row(
        "blocks.*.feed_forward.output",
        Linear("model.layers.*.mlp.down_proj"),
    ),
];

/// OLMoE's and Qwen's router.
pub(super) const ROUTER: &[NameRow] = &[row(
    "blocks.*.feed_forward.router.linear",
    Linear("model.layers.*.mlp.gate"),
)];

/// The experts of a sparse feed-forward layer.
pub(super) const EXPERTS: &[NameRow] = &[
    row(
        "blocks.*.feed_forward.experts.gate",
        Each("model.layers.*.mlp.experts.#.gate_proj.weight"),
    ),
    row(
        "blocks.*.feed_forward.experts.up",
        Each("model.layers.*.mlp.experts.#.up_proj.weight"),
    ),
    row(
        "blocks.*.feed_forward.experts.down",
        Each("model.layers.*.mlp.experts.#.down_proj.weight"),
    ),
];

/// Mixtral's: `w2(silu(w1(x)) * w3(x))`.
pub(super) const MIXTRAL: &[NameRow] = &[
    row(
        "blocks.*.feed_forward.router.linear",
        Linear("model.layers.*.block_sparse_moe.gate"),
    ),
    row(
        "blocks.*.feed_forward.experts.gate",
        Each("model.layers.*.block_sparse_moe.experts.#.w1.weight"),
    ),
    row(
        "blocks.*.feed_forward.experts.up",
        Each("model.layers.*.block_sparse_moe.experts.#.w3.weight"),
    ),
    row(
        "blocks.*.feed_forward.experts.down",
        Each("model.layers.*.block_sparse_moe.experts.#.w2.weight"),
    ),
];
