//! The table of architectures: which placement each one is, and what its configuration assumes where it says nothing.

use hybridnorm_moe::ModelConfig;

use super::dense::{llama, mistral, olmo2, qwen3};
use super::fields::Fields;
use super::gemma::{gemma2, gemma3, gemma3_multimodal};
use super::sparse::{mixtral, olmoe, qwen3_moe};
use super::write::{self, Write};
use super::{InteropError, NameMap, hybridnorm, names, unsupported};
use crate::names::NameRow;

/// A `model_type`.
#[derive(Debug)]
pub struct Architecture {
    /// As `config.json` has it.
    pub model_type: &'static str,
    /// The class in transformers.
    pub class: &'static str,
    /// The placement it has, by its name in [`PLACEMENTS`](hybridnorm_core::PLACEMENTS).
    pub placement: &'static str,
    /// What else it is made of.
    pub summary: &'static str,
    /// What transformers assumes where a configuration says nothing.
    pub(super) defaults: Defaults,
    /// The model behind a configuration.
    model: fn(&Fields<'_>, &'static Architecture) -> Result<ModelConfig, InteropError>,
    /// The configuration of a model, as far as this architecture can say it; `None` where models are read only.
    pub(super) write: Option<Write>,
    /// What its tensors are called.
    names: &'static [&'static [NameRow]],
    /// What the names begin with instead of `model.`.
    prefix: Option<&'static str>,
    /// Tensors that are left out.
    left_out: &'static [&'static str],
    /// Whether transformers refuses a width that is no multiple of the number of heads, even where `head_dim` is given.
    pub(super) whole_heads: bool,
}

impl Architecture {
    /// Whether transformers needs code for it that lies beside the weights.
    pub fn needs_code(&self) -> bool {
        self.model_type == hybridnorm::MODEL_TYPE
    }

    /// The model that `fields` describe.
    pub(super) fn model(&'static self, fields: &Fields<'_>) -> Result<ModelConfig, InteropError> {
        (self.model)(fields, self)
    }

    /// What the tensors of a model are called whose queries and keys have these widths.
    pub(super) fn names(&self, widths: (usize, usize)) -> NameMap {
        let names = NameMap::new(self.names, widths).ignoring(IGNORED);
        let names = names.ignoring(self.left_out);
        match self.prefix {
            Some(prefix) => names.with_prefix("model.", prefix),
            None => names,
        }
    }
}

/// Tables that older files carry along, and that follow from the configuration.
const IGNORED: &[&str] = &["model.layers.*.self_attn.rotary_emb.inv_freq"];

/// What transformers assumes where a configuration says nothing (`models/*/configuration_*.py`, 5.24).
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub layers: usize,
    pub heads: usize,
    /// `None` is as many as heads.
    pub kv_heads: Option<usize>,
    /// `None` is `hidden_size` by heads.
    pub head_dim: Option<usize>,
    pub positions: usize,
    pub epsilon: f64,
    pub rope_theta: f64,
    /// That of layers with a window, where they have one of their own.
    pub local_theta: Option<f64>,
    pub tied: bool,
    pub window: Option<usize>,
}

/// Llama's own.
const LLAMA: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    intermediate_size: 11_008,
    layers: 32,
    heads: 32,
    kv_heads: None,
    head_dim: None,
    positions: 2048,
    epsilon: 1e-6,
    rope_theta: 1e4,
    local_theta: None,
    tied: false,
    window: None,
};

/// Mistral's own.
const MISTRAL: Defaults = Defaults {
    intermediate_size: 14_336,
    kv_heads: Some(8),
    positions: 131_072,
    window: Some(4096),
    ..LLAMA
};

/// Gemma 2's own.
const GEMMA: Defaults = Defaults {
    vocab_size: 256_000,
    hidden_size: 2304,
    intermediate_size: 9216,
    layers: 26,
    heads: 8,
    kv_heads: Some(4),
    head_dim: Some(256),
    positions: 8192,
    epsilon: 1e-6,
    rope_theta: 1e4,
    local_theta: None,
    tied: true,
    window: Some(4096),
};

/// Gemma 3's own.
const GEMMA_3: Defaults = Defaults {
    vocab_size: 262_208,
    positions: 131_072,
    rope_theta: 1e6,
    local_theta: Some(1e4),
    ..GEMMA
};

/// What most rows share.
const fn row(
    model_type: &'static str,
    class: &'static str,
    placement: &'static str,
    summary: &'static str,
    model: fn(&Fields<'_>, &'static Architecture) -> Result<ModelConfig, InteropError>,
) -> Architecture {
    Architecture {
        model_type,
        class,
        placement,
        summary,
        defaults: LLAMA,
        model,
        write: None,
        names: &[names::MODEL, names::PRE, names::DENSE],
        prefix: None,
        left_out: &[],
        whole_heads: false,
    }
}

/// Every architecture that can be read; most can be written too, the first that computes a model is taken.
pub static ARCHITECTURES: &[Architecture] = &[
    Architecture {
        write: Some(write::llama),
        whole_heads: true,
        ..row(
            "llama",
            "LlamaForCausalLM",
            "pre",
            "grouped queries, RoPE (plain, llama3, linear or yarn), SwiGLU; biases on attention and feed-forward layers where asked for",
            llama,
        )
    },
    Architecture {
        defaults: MISTRAL,
        write: Some(write::mistral),
        ..row(
            "mistral",
            "MistralForCausalLM",
            "pre",
            "as Llama, with a sliding window in all layers",
            mistral,
        )
    },
    Architecture {
        defaults: Defaults {
            vocab_size: 151_936,
            intermediate_size: 22_016,
            kv_heads: Some(32),
            head_dim: Some(128),
            positions: 32_768,
            window: Some(4096),
            ..LLAMA
        },
        write: Some(write::qwen3),
        ..row(
            "qwen3",
            "Qwen3ForCausalLM",
            "pre-qk",
            "queries and keys normed per head; a sliding window in the upper layers where asked for",
            qwen3,
        )
    },
    Architecture {
        defaults: Defaults {
            vocab_size: 151_936,
            hidden_size: 2048,
            intermediate_size: 6144,
            layers: 24,
            kv_heads: Some(4),
            positions: 32_768,
            window: Some(4096),
            ..LLAMA
        },
        names: &[
            names::MODEL,
            names::PRE,
            names::DENSE,
            names::ROUTER,
            names::EXPERTS,
        ],
        write: Some(write::qwen3_moe),
        ..row(
            "qwen3_moe",
            "Qwen3MoeForCausalLM",
            "pre-qk",
            "sparse experts in all layers, or every n-th; others dense",
            qwen3_moe,
        )
    },
    Architecture {
        defaults: Defaults {
            epsilon: 1e-5,
            rope_theta: 1e6,
            window: None,
            ..MISTRAL
        },
        names: &[names::MODEL, names::PRE, names::MIXTRAL],
        write: Some(write::mixtral),
        ..row(
            "mixtral",
            "MixtralForCausalLM",
            "pre",
            "sparse experts whose weights sum to one",
            mixtral,
        )
    },
    Architecture {
        defaults: Defaults {
            vocab_size: 50_304,
            epsilon: 1e-5,
            ..LLAMA
        },
        names: &[names::MODEL, names::OUTPUT, names::DENSE],
        write: Some(write::olmo2),
        ..row(
            "olmo2",
            "Olmo2ForCausalLM",
            "output-norm",
            "queries and keys normed over their full width, norms on the sublayers' outputs",
            olmo2,
        )
    },
    Architecture {
        defaults: Defaults {
            vocab_size: 50_304,
            hidden_size: 2048,
            intermediate_size: 2048,
            layers: 16,
            heads: 16,
            positions: 4096,
            epsilon: 1e-5,
            ..LLAMA
        },
        names: &[names::MODEL, names::PRE, names::ROUTER, names::EXPERTS],
        write: Some(write::olmoe),
        ..row(
            "olmoe",
            "OlmoeForCausalLM",
            "pre-qk-full",
            "queries and keys normed over their full width, then clamped where asked for; sparse experts",
            olmoe,
        )
    },
    Architecture {
        defaults: GEMMA,
        names: &[names::MODEL, names::SANDWICH, names::DENSE],
        write: Some(write::gemma2),
        whole_heads: true,
        ..row(
            "gemma2",
            "Gemma2ForCausalLM",
            "sandwich",
            "norms of 1 + weight, scaled embedding, GeGLU, soft caps on scores and logits, a window in every second layer",
            gemma2,
        )
    },
    Architecture {
        defaults: GEMMA_3,
        names: &[names::MODEL, names::SANDWICH, names::DENSE],
        write: Some(write::gemma3),
        whole_heads: true,
        ..row(
            "gemma3_text",
            "Gemma3ForCausalLM",
            "sandwich-qk",
            "as Gemma 2 without the caps; queries and keys normed per head, five layers with a window and RoPE of their own for each without",
            gemma3,
        )
    },
    Architecture {
        defaults: GEMMA_3,
        names: &[names::MODEL, names::SANDWICH, names::DENSE],
        prefix: Some("language_model.model."),
        left_out: &["vision_tower.", "multi_modal_projector."],
        ..row(
            "gemma3",
            "Gemma3ForConditionalGeneration",
            "sandwich-qk",
            "the language model of Gemma 3; its eyes are left out",
            gemma3_multimodal,
        )
    },
    Architecture {
        names: &[names::MODEL, names::EXPERTS, hybridnorm::NAMES],
        ..row(
            hybridnorm::MODEL_TYPE,
            "HybridNormForCausalLM",
            "hybrid-star",
            "this project's own: `layer_norms` says where the norms of each layer stand; runs by the code beside it",
            hybridnorm::read,
        )
    },
];

/// The authors' own release, which is no architecture of transformers: see [`official`](crate::official).
pub static RELEASE: Architecture = row(
    "olmo-hybridnorm",
    "OLMo",
    "hybrid-star",
    "the authors' own release: `config.yaml` says where the norms stand",
    |_, row| {
        unsupported(
            "model_type",
            row.model_type,
            "its configuration is no config.json",
        )
    },
);

/// The row of a `model_type`.
pub(super) fn find(model_type: &str) -> Result<&'static Architecture, InteropError> {
    let mut rows = ARCHITECTURES.iter();
    rows.find(|row| row.model_type == model_type).map_or_else(
        || {
            let known = ARCHITECTURES.iter().map(|row| row.model_type);
            let known = known.collect::<Vec<_>>().join(", ");
            let reason = format!("implemented are {known}");
            unsupported("model_type", model_type, &reason)
        },
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybridnorm_core::PLACEMENTS;

    #[test]
    fn every_architecture_has_a_placement_of_the_table() {
        for row in ARCHITECTURES {
            let mut placements = PLACEMENTS.iter();
            let known = placements.any(|placement| placement.name == row.placement);
            assert!(known, "{}: {}", row.model_type, row.placement);
        }
    }
}
