//! Options of a decoder: each does what it says, and nothing where it is neutral.

use burn::tensor::Device;
use hybridnorm_core::attention::rope::{LinearScaling, YarnScaling};
use hybridnorm_core::{DecoderConfig, NormStyle, Pass, RopeScaling, RotaryConfig};
use hybridnorm_testing::{apply, every_device, largest_difference};

use crate::small::{config, logits};

fn scaled(scaling: RopeScaling) -> DecoderConfig {
    DecoderConfig {
        rope: RotaryConfig {
            scaling: Some(scaling),
            ..config().rope
        },
        ..config()
    }
}

fn yarn(attention_factor: f64) -> YarnScaling {
    YarnScaling {
        factor: 1.0,
        original_max_position: 64.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor,
        truncate: true,
    }
}

/// Options set to where they do nothing give the plain numbers; set elsewhere they change them.
#[apply(every_device!)]
fn options_do_something_and_only_what_they_say(#[case] device: &Device) {
    let row = [3, 1, 4, 1, 5, 9];
    let run = |config: DecoderConfig| {
        logits(
            &config.init(device).unwrap(),
            &row,
            &mut Pass::causal(),
            device,
        )
        .concat()
    };
    let plain = run(config());
    let scale = 1.0 / (config().head_dim() as f64).sqrt();
    for (name, neutral, active) in [
        (
            "attention_softcap",
            DecoderConfig {
                attention_softcap: Some(1e6),
                ..config()
            },
            DecoderConfig {
                attention_softcap: Some(0.1),
                ..config()
            },
        ),
        (
            "logit_softcap",
            DecoderConfig {
                logit_softcap: Some(1e6),
                ..config()
            },
            DecoderConfig {
                logit_softcap: Some(0.1),
                ..config()
            },
        ),
        (
            "sliding_window",
            DecoderConfig {
                sliding_window: Some(6),
                ..config()
            },
            DecoderConfig {
                sliding_window: Some(2),
                ..config()
            },
        ),
        (
            "clip_qkv",
            DecoderConfig {
                clip_qkv: Some(1e6),
                ..config()
            },
            DecoderConfig {
                clip_qkv: Some(0.01),
                ..config()
            },
        ),
        (
            "clip_normed",
            DecoderConfig {
                clip_qkv: Some(1e6),
                clip_normed: true,
                ..config()
            },
            DecoderConfig {
                clip_qkv: Some(0.3),
                clip_normed: true,
                ..config()
            },
        ),
        (
            "softmax_scale",
            DecoderConfig {
                softmax_scale: Some(scale),
                ..config()
            },
            DecoderConfig {
                softmax_scale: Some(3.0 * scale),
                ..config()
            },
        ),
        (
            "embedding_scale",
            DecoderConfig {
                embedding_scale: Some(1.0),
                ..config()
            },
            DecoderConfig {
                embedding_scale: Some(3.0),
                ..config()
            },
        ),
        (
            "global_layers",
            DecoderConfig {
                sliding_window: Some(2),
                global_layers: (0..config().n_layers).collect(),
                ..config()
            },
            DecoderConfig {
                sliding_window: Some(2),
                global_layers: vec![0],
                ..config()
            },
        ),
        (
            "local_rope",
            DecoderConfig {
                sliding_window: Some(6),
                local_rope: Some(config().rope),
                ..config()
            },
            DecoderConfig {
                sliding_window: Some(6),
                local_rope: Some(RotaryConfig {
                    theta: 10.0,
                    scaling: None,
                }),
                ..config()
            },
        ),
        (
            "rope.scaling",
            scaled(RopeScaling::Linear(LinearScaling { factor: 1.0 })),
            scaled(RopeScaling::Linear(LinearScaling { factor: 4.0 })),
        ),
        (
            "rope.scaling, yarn",
            scaled(RopeScaling::Yarn(yarn(1.0))),
            scaled(RopeScaling::Yarn(yarn(2.0))),
        ),
        (
            "norm.unit_offset",
            DecoderConfig {
                norm: NormStyle {
                    unit_offset: true,
                    ..config().norm
                },
                ..config()
            },
            DecoderConfig {
                norm: NormStyle {
                    epsilon: 0.1,
                    unit_offset: true,
                    ..config().norm
                },
                ..config()
            },
        ),
        (
            "logit_scale",
            DecoderConfig {
                logit_scale: Some(1.0),
                ..config()
            },
            DecoderConfig {
                logit_scale: Some(0.5),
                ..config()
            },
        ),
    ] {
        assert!(
            largest_difference(&run(neutral), &plain) < 1e-5,
            "{name} is not neutral"
        );
        assert!(
            largest_difference(&run(active), &plain) > 1e-4,
            "{name} does nothing"
        );
    }
}
