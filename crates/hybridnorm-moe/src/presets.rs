//! The published sparse size (paper.md §2.1, Table 9) and a small one.

use hybridnorm_core::{DecoderConfig, Placement, RotaryConfig};

use crate::feed_forward::SparseConfig;
use crate::model::ModelConfig;

/// A named size of a sparse model.
#[derive(Debug)]
pub struct Preset {
    /// The name, as it is typed.
    pub name: &'static str,
    /// Where the numbers come from.
    pub summary: &'static str,
    build: fn() -> ModelConfig,
}

impl Preset {
    /// The preset's configuration.
    pub fn config(&self) -> ModelConfig {
        (self.build)()
    }
}

/// Every sparse preset.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "moe-demo",
        summary: "8 experts, 2 per token: learns Rust source on two CPU cores in minutes",
        build: || ModelConfig {
            decoder: DecoderConfig {
                n_kv_heads: 2,
                d_ff: 176,
                padded_vocab_size: 320,
                max_seq_len: 256,
                ..DecoderConfig::new(257, 128, 4, 4)
            },
            sparse: Some(SparseConfig::new(8, 2, 176)),
        },
    },
    Preset {
        name: "moe-1b-7b",
        summary: "MoE-1B-7B as the released configuration has it: 64 experts, 8 per token, HybridNorm (Table 2 is of hybrid-star)",
        build: || ModelConfig {
            decoder: DecoderConfig {
                d_ff: 1024,
                padded_vocab_size: 50_304,
                max_seq_len: 4096,
                tied: false,
                placement: Placement::of_row("hybrid"),
                rope: RotaryConfig {
                    theta: 10_000.0,
                    ..RotaryConfig::default()
                },
                ..DecoderConfig::new(50_280, 2048, 16, 16)
            },
            sparse: Some(SparseConfig::new(64, 8, 1024)),
        },
    },
];
