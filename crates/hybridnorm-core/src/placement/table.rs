//! The one table of named placements. A new placement from next year's paper is one row here.

use super::layer::{LayerNorms, NormSite, QkvNormSites, ResidualNorms};
use crate::init::InitScheme;

/// Mix-LN's own default: the first quarter of the layers is Post-LN (arXiv 2412.13795).
pub(super) const MIX_LN_FRACTION: f64 = 0.25;

/// One named placement.
#[derive(Debug)]
pub struct PlacementRow {
    /// The name, as it is typed.
    pub name: &'static str,
    /// What it is, and where it comes from.
    pub summary: &'static str,
    /// A norm after the embedding.
    pub embedding_norm: bool,
    /// The initialisation it works best with.
    pub init: InitScheme,
    pub(super) norms: fn(layer: usize, n_layers: usize, fraction: f64) -> LayerNorms,
    pub(super) clash: fn(InitScheme) -> Option<&'static str>,
}

impl PartialEq for PlacementRow {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// The row called `name`.
pub(super) fn row(name: &str) -> Option<&'static PlacementRow> {
    PLACEMENTS.iter().find(|row| row.name == name)
}

type R = ResidualNorms;
const NONE: QkvNormSites = QkvNormSites::NONE;
const QK: QkvNormSites = QkvNormSites::per_head("qk");
const QKV: QkvNormSites = QkvNormSites::QKV;

const PRE: LayerNorms = LayerNorms::new(NONE, R::PRE, R::PRE);
const POST: LayerNorms = LayerNorms::new(NONE, R::POST, R::POST);
const HYBRID: LayerNorms = LayerNorms::new(QKV, R::PLAIN, R::SHIFTED);

/// α = (2L)^¼ (arXiv 2203.00555, decoder only).
fn deepnorm_alpha(n_layers: usize) -> f64 {
    (2.0 * n_layers as f64).powf(0.25)
}

/// Block 0 gets `first`, the others HybridNorm.
fn first_block(layer: usize, first: LayerNorms) -> LayerNorms {
    if layer == 0 { first } else { HYBRID }
}

/// A row with the norms most placements share: a final norm, none after the embedding.
const fn base(
    name: &'static str,
    summary: &'static str,
    init: InitScheme,
    norms: fn(usize, usize, f64) -> LayerNorms,
) -> PlacementRow {
    PlacementRow {
        name,
        summary,
        embedding_norm: false,
        init,
        norms,
        clash: |_| None,
    }
}

/// A row of the paper's own family: Megatron initialisation, and a warning beside `normal`.
const fn hybrid(
    name: &'static str,
    summary: &'static str,
    norms: fn(usize, usize, f64) -> LayerNorms,
) -> PlacementRow {
    PlacementRow {
        clash: |init| {
            (init == InitScheme::Normal).then_some(
                "the paper's Table 5 finds it worse there (C4 perplexity 20.44 against 20.00), and a port that did not converge (reference issue #2) was traced to initialisation and warm-up",
            )
        },
        ..base(name, summary, InitScheme::Megatron, norms)
    }
}

use InitScheme::{DeepNorm, Megatron, Normal};

/// Every named placement.
pub static PLACEMENTS: &[PlacementRow] = &[
    base(
        "pre",
        "Pre-Norm, eq. 4 (arXiv 2002.04745)",
        Normal,
        |_, _, _| PRE,
    ),
    base(
        "post",
        "Post-Norm, eq. 3 (arXiv 1706.03762); its last norm is the model's final norm",
        Normal,
        |_, _, _| POST,
    ),
    base(
        "post-shifted",
        "Post-Norm as the authors' release has it: norm-then-residual in both sublayers",
        Normal,
        |_, _, _| LayerNorms::new(NONE, R::SHIFTED, R::SHIFTED),
    ),
    base(
        "pre-qk",
        "QK-norm, eq. 43 with eq. 55-56 (Qwen3): Pre-Norm with normed queries and keys",
        Normal,
        |_, _, _| LayerNorms::new(QK, R::PRE, R::PRE),
    ),
    base(
        "pre-qk-full",
        "OLMoE (arXiv 2409.02060): Pre-Norm with queries and keys normed over their full width",
        Normal,
        |_, _, _| LayerNorms::new(QkvNormSites::at("qk", NormSite::FULL_WIDTH), R::PRE, R::PRE),
    ),
    hybrid(
        "hybrid",
        "HybridNorm, eq. 6: QKV-norm in attention, norm-then-residual in the feed-forward",
        |_, _, _| HYBRID,
    ),
    hybrid(
        "hybrid-star",
        "HybridNorm*, eq. 7: HybridNorm with a Pre-Norm first block",
        |layer, _, _| first_block(layer, LayerNorms::new(QKV, R::PRE, R::PRE)),
    ),
    hybrid(
        "hybrid-star-output",
        "the paper's 7B model: HybridNorm* with a norm on attention's output (its scale starts at 1; the paper's 1/√(2L) may mean it, and is not specified further)",
        |layer, _, _| {
            let mut norms = first_block(layer, LayerNorms::new(QKV, R::PRE, R::PRE));
            norms.attention.output = true;
            norms
        },
    ),
    hybrid(
        "first-qkv-pre",
        "HybridNorm with a QKV-Pre first block, eq. 10",
        |layer, _, _| first_block(layer, LayerNorms::new(QKV, R::PLAIN, R::PRE)),
    ),
    PlacementRow {
        embedding_norm: true,
        ..hybrid(
            "hybrid-embed-norm",
            "HybridNorm with a norm after the embedding (paper §5.4)",
            |_, _, _| HYBRID,
        )
    },
    hybrid(
        "qkvc-post",
        "QKVC-Post, eq. 45 with eq. 49-50",
        |_, _, _| LayerNorms::new(QkvNormSites::per_head("qkvc"), R::PLAIN, R::SHIFTED),
    ),
    hybrid("qkc-post", "QKC-Post, eq. 46 with eq. 49-50", |_, _, _| {
        LayerNorms::new(QkvNormSites::per_head("qkc"), R::PLAIN, R::SHIFTED)
    }),
    hybrid(
        "qk-post",
        "QK-Post, eq. 43 with eq. 49-50; diverges in the paper's Table 6",
        |_, _, _| LayerNorms::new(QK, R::PLAIN, R::SHIFTED),
    ),
    hybrid("kv-post", "KV-Post, eq. 44 with eq. 49-50", |_, _, _| {
        LayerNorms::new(QkvNormSites::per_head("kv"), R::PLAIN, R::SHIFTED)
    }),
    hybrid("kc-post", "KC-Post, eq. 47 with eq. 49-50", |_, _, _| {
        LayerNorms::new(QkvNormSites::per_head("kc"), R::PLAIN, R::SHIFTED)
    }),
    hybrid("qkv-pre", "QKV-Pre, eq. 51-52", |_, _, _| {
        LayerNorms::new(QKV, R::PLAIN, R::PRE)
    }),
    hybrid("pre-qkv-post", "Pre-QKV-Post, eq. 53-54", |_, _, _| {
        LayerNorms::new(QKV, R::PRE, R::SHIFTED)
    }),
    hybrid("pre-qkv-pre", "Pre-QKV-Pre, eq. 55-56", |_, _, _| {
        LayerNorms::new(QKV, R::PRE, R::PRE)
    }),
    hybrid(
        "pre-qk-post",
        "Pre-QK-Post, eq. 43 with eq. 53-54",
        |_, _, _| LayerNorms::new(QK, R::PRE, R::SHIFTED),
    ),
    base("pre-post", "Pre-Post, eq. 57-58", Megatron, |_, _, _| {
        LayerNorms::new(NONE, R::PRE, R::SHIFTED)
    }),
    base("post-pre", "Post-Pre, eq. 59-60", Megatron, |_, _, _| {
        LayerNorms::new(NONE, R::SHIFTED, R::PRE)
    }),
    base(
        "mix-ln",
        "Mix-LN (arXiv 2412.13795): true Post-LN in the first quarter (mix-ln=F: fraction F), Pre-LN above",
        Normal,
        |layer, n_layers, fraction| {
            if (layer as f64) < (fraction * n_layers as f64).floor() {
                POST
            } else {
                PRE
            }
        },
    ),
    PlacementRow {
        clash: |init| {
            (init != DeepNorm)
                .then_some("DeepNorm's depth bound rests on its own gains β = (8L)^(-1/4)")
        },
        ..base(
            "deepnorm",
            "DeepNorm (arXiv 2203.00555): Post-Norm with α = (2L)^(1/4) on the residual",
            DeepNorm,
            |_, n_layers, _| {
                let around = R::POST.with_alpha(deepnorm_alpha(n_layers));
                LayerNorms::new(NONE, around.clone(), around)
            },
        )
    },
    base(
        "sandwich",
        "Sandwich-LN (arXiv 2105.13290; Gemma, GLM-4): norms before and after each sublayer",
        Normal,
        |_, _, _| LayerNorms::new(NONE, R::SANDWICH, R::SANDWICH),
    ),
    base(
        "sandwich-qk",
        "Gemma 3 (arXiv 2503.19786): sandwich with normed queries and keys",
        Normal,
        |_, _, _| LayerNorms::new(QK, R::SANDWICH, R::SANDWICH),
    ),
    PlacementRow {
        embedding_norm: true,
        ..base(
            "peri-ln",
            "Peri-LN (arXiv 2502.02732): sandwich with a norm after the embedding",
            Normal,
            |_, _, _| LayerNorms::new(NONE, R::SANDWICH, R::SANDWICH),
        )
    },
    base(
        "output-norm",
        "output norm (OLMo 2, arXiv 2501.00656): norm on each sublayer's output, full-width QK-norm",
        Normal,
        |_, _, _| {
            LayerNorms::new(
                QkvNormSites::at("qk", NormSite::FULL_WIDTH),
                R::OUTPUT,
                R::OUTPUT,
            )
        },
    ),
    PlacementRow {
        clash: |init| {
            init.is_depth_scaled()
                .then_some("LayerNorm Scaling already shrinks with depth; its authors drop scaled initialisation (arXiv 2502.05795)")
        },
        ..base(
            "layernorm-scaling",
            "LayerNorm Scaling (arXiv 2502.05795): Pre-Norm with the norm divided by √l",
            Normal,
            |layer, _, _| {
                let around = ResidualNorms {
                    input_scale: 1.0 / ((layer + 1) as f64).sqrt(),
                    ..R::PRE
                };
                LayerNorms::new(NONE, around.clone(), around)
            },
        )
    },
    base(
        "minimax",
        "MiniMax-01: norm-then-residual with α = (2L)^(1/4) on the residual",
        Normal,
        |_, n_layers, _| {
            let around = R::SHIFTED.with_alpha(deepnorm_alpha(n_layers));
            LayerNorms::new(NONE, around.clone(), around)
        },
    ),
];
