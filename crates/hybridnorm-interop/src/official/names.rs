//! The release's own names (a fork of OLMo's, megablocks' for the experts).

use crate::names::{NameMap, NameRow, Theirs};

const fn row(ours: &'static str, theirs: Theirs) -> NameRow {
    NameRow { ours, theirs }
}

use Theirs::{Linear, Same, Stack, ValueGate};

const TABLE: &[NameRow] = &[
    row("embedding", Same("transformer.wte")),
    row("embedding_norm", Same("transformer.emb_norm")),
    row("final_norm", Same("transformer.ln_f")),
    row("head", Linear("transformer.ff_out")),
    row(
        "blocks.*.attention.qkv",
        Linear("transformer.blocks.*.att_proj"),
    ),
    row(
        "blocks.*.attention.output",
        Linear("transformer.blocks.*.attn_out"),
    ),
    row(
        "blocks.*.attention.norms.query.norm",
        Same("transformer.blocks.*.q_norm"),
    ),
    row(
        "blocks.*.attention.norms.key.norm",
        Same("transformer.blocks.*.k_norm"),
    ),
    row(
        "blocks.*.attention.norms.value.norm",
        Same("transformer.blocks.*.v_norm"),
    ),
    row(
        "blocks.*.attention.norms.context.norm",
        Same("transformer.blocks.*.c_norm"),
    ),
    row(
        "blocks.*.attention_residual.stream",
        Same("transformer.blocks.*.attn_norm"),
    ),
    row(
        "blocks.*.attention_residual.input",
        Same("transformer.blocks.*.attn_norm"),
    ),
    row(
        "blocks.*.feed_forward_residual.stream",
        Same("transformer.blocks.*.ff_norm"),
    ),
    row(
        "blocks.*.feed_forward_residual.input",
        Same("transformer.blocks.*.ff_norm"),
    ),
    row(
        "blocks.*.feed_forward.input",
        Linear("transformer.blocks.*.ff_proj"),
    ),
    row(
        "blocks.*.feed_forward.output",
        Linear("transformer.blocks.*.ff_out"),
    ),
    row(
        "blocks.*.feed_forward.router.linear",
        Linear("transformer.blocks.*.ffn.router.layer"),
    ),
    row(
        "blocks.*.feed_forward.experts.gate",
        Stack {
            name: "transformer.blocks.*.ffn.experts.mlp.w1",
            transposed: true,
        },
    ),
    row(
        "blocks.*.feed_forward.experts.up",
        Stack {
            name: "transformer.blocks.*.ffn.experts.mlp.v1",
            transposed: true,
        },
    ),
    row(
        "blocks.*.feed_forward.experts.down",
        Stack {
            name: "transformer.blocks.*.ffn.experts.mlp.w2",
            transposed: false,
        },
    ),
    // megablocks, `SharedGLU`: down(silu(gate(x)) * up(x)).
    row(
        "blocks.*.feed_forward.shared.input",
        ValueGate([
            "transformer.blocks.*.ffn.shared_expert.up_proj",
            "transformer.blocks.*.ffn.shared_expert.gate_proj",
        ]),
    ),
    row(
        "blocks.*.feed_forward.shared.output",
        Linear("transformer.blocks.*.ffn.shared_expert.down_proj"),
    ),
];

/// The names of the release.
pub fn names() -> NameMap {
    // Queries, keys and values are one tensor there, so that their widths do not matter.
    NameMap::new(&[TABLE], (0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_releases() {
        for (path, name) in [
            ("embedding.weight", "transformer.wte.weight"),
            ("head.weight", "transformer.ff_out.weight"),
            ("head.bias", "transformer.ff_out.bias"),
            (
                "blocks.11.attention.qkv.weight",
                "transformer.blocks.11.att_proj.weight",
            ),
            (
                "blocks.0.attention.norms.value.norm.weight",
                "transformer.blocks.0.v_norm.weight",
            ),
            (
                "blocks.0.feed_forward_residual.stream.bias",
                "transformer.blocks.0.ff_norm.bias",
            ),
            (
                "blocks.3.feed_forward.experts.up",
                "transformer.blocks.3.ffn.experts.mlp.v1",
            ),
            (
                "blocks.3.feed_forward.router.linear.weight",
                "transformer.blocks.3.ffn.router.layer.weight",
            ),
        ] {
            let layout = names().layout(path, &[2, 3]).unwrap();
            assert_eq!(layout.names().collect::<Vec<_>>(), [name], "{path}");
        }
        for path in ["blocks.0.attention_residual.after.weight", "blocks.x.y"] {
            assert_eq!(names().layout(path, &[2, 3]), None, "{path}");
        }
    }
}
