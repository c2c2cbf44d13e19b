//! Module paths and the names PyTorch gives the same parameters.

use crate::load::NamedTensor;

/// The parts of a block: our path, theirs, and whether it is a matrix stored `[out, in]`.
const BLOCK: &[(&str, &str, bool)] = &[
    ("attention.qkv", "att_proj", true),
    ("attention.output", "attn_out", true),
    ("attention.norms.query.norm", "q_norm", false),
    ("attention.norms.key.norm", "k_norm", false),
    ("attention.norms.value.norm", "v_norm", false),
    ("attention.norms.context.norm", "c_norm", false),
    ("attention_residual.stream", "attn_norm", false),
    ("attention_residual.input", "attn_norm", false),
    ("feed_forward_residual.stream", "ff_norm", false),
    ("feed_forward_residual.input", "ff_norm", false),
    ("feed_forward.input", "ff_proj", true),
    ("feed_forward.output", "ff_out", true),
];

/// The parts outside the blocks.
const MODEL: &[(&str, &str, bool)] = &[
    ("embedding", "wte", false),
    ("embedding_norm", "emb_norm", false),
    ("final_norm", "ln_f", false),
    ("head", "ff_out", true),
];

/// What the reference calls the parameter at `path` of a [`Decoder`](hybridnorm_core::Decoder), or `None` where it
/// has no such parameter.
pub fn name_of(path: &str) -> Option<NamedTensor> {
    let (module, leaf) = path.rsplit_once('.')?;
    let is_matrix = leaf == "weight";
    let find = |table: &[(&str, &'static str, bool)], part: &str| {
        table
            .iter()
            .find(|(ours, _, _)| *ours == part)
            .map(|(_, theirs, matrix)| (*theirs, *matrix && is_matrix))
    };
    let (name, transposed) = match module.strip_prefix("blocks.") {
        Some(rest) => {
            let (layer, part) = rest.split_once('.')?;
            let (theirs, transposed) = find(BLOCK, part)?;
            (format!("blocks.{layer}.{theirs}"), transposed)
        }
        None => {
            let (theirs, transposed) = find(MODEL, module)?;
            (theirs.to_string(), transposed)
        }
    };
    Some(NamedTensor {
        name: format!("transformer.{name}.{leaf}"),
        transposed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_releases() {
        for (path, name, transposed) in [
            ("embedding.weight", "transformer.wte.weight", false),
            ("head.weight", "transformer.ff_out.weight", true),
            ("head.bias", "transformer.ff_out.bias", false),
            (
                "blocks.11.attention.qkv.weight",
                "transformer.blocks.11.att_proj.weight",
                true,
            ),
            (
                "blocks.0.attention.norms.value.norm.weight",
                "transformer.blocks.0.v_norm.weight",
                false,
            ),
            (
                "blocks.0.feed_forward_residual.stream.bias",
                "transformer.blocks.0.ff_norm.bias",
                false,
            ),
        ] {
            let expected = NamedTensor {
                name: name.to_string(),
                transposed,
            };
            assert_eq!(name_of(path), Some(expected), "{path}");
        }
        assert_eq!(name_of("blocks.0.attention_residual.after.weight"), None);
    }
}
