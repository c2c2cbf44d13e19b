//! The published sizes (paper.md §2.1, Table 9) and a small one.

use crate::decoder::DecoderConfig;
use crate::error::ConfigError;
use crate::names;
use crate::placement::Placement;

/// A named model size.
#[derive(Debug)]
pub struct Preset {
    /// The name, as it is typed.
    pub name: &'static str,
    /// Where the numbers come from.
    pub summary: &'static str,
    build: fn() -> DecoderConfig,
}

impl Preset {
    /// The preset's configuration.
    pub fn config(&self) -> DecoderConfig {
        (self.build)()
    }
}

/// Every preset.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "demo",
        summary: "learns Rust source on two CPU cores in five minutes",
        build: || DecoderConfig {
            n_kv_heads: 2,
            d_ff: 352,
            padded_vocab_size: 320,
            max_seq_len: 256,
            ..DecoderConfig::new(257, 128, 4, 4)
        },
    },
    Preset {
        name: "151m",
        summary: "151M of Table 9",
        build: || dense(768, 2048, (16, 4), 12),
    },
    Preset {
        name: "285m",
        summary: "285M of Table 9",
        build: || dense(1024, 4096, (16, 4), 12),
    },
    Preset {
        name: "550m",
        summary: "550M of Table 9",
        build: || dense(1536, 4096, (16, 4), 16),
    },
    Preset {
        name: "543m-deep",
        summary: "543M, 29 layers, of Table 9",
        build: || dense(1024, 4096, (16, 4), 29),
    },
    Preset {
        name: "1.2b",
        summary: "1.2B as the released configuration has it (FFN 8192)",
        build: || dense(2048, 8192, (32, 8), 16),
    },
    Preset {
        name: "1.2b-9192",
        summary: "1.2B as Table 9 prints it (FFN 9192)",
        build: || dense(2048, 9192, (32, 8), 16),
    },
    Preset {
        name: "7b",
        summary: "7B: OLMo 2's size, HybridNorm* with a norm on attention's output (no configuration was published)",
        build: || DecoderConfig {
            tied: false,
            placement: Placement::of_row("hybrid-star-output"),
            ..dense(4096, 11008, (32, 32), 32)
        },
    },
];

/// Looks a preset up by name.
///
/// # Errors
/// An unknown name is refused with the nearest match.
pub fn find(name: &str) -> Result<&'static Preset, ConfigError> {
    PRESETS
        .iter()
        .find(|preset| preset.name == name)
        .ok_or_else(|| names::unknown("preset", name, PRESETS.iter().map(|preset| preset.name)))
}

/// What the paper's dense models share: context 4096, dolma2 vocabulary, tied head.
fn dense(d_model: usize, d_ff: usize, heads: (usize, usize), n_layers: usize) -> DecoderConfig {
    DecoderConfig {
        n_kv_heads: heads.1,
        d_ff,
        padded_vocab_size: 100_352,
        max_seq_len: 4096,
        ..DecoderConfig::new(100_278, d_model, heads.0, n_layers)
    }
}
