//! What attention may see: the future, windows, documents, the cache; and what it must not depend on.

use burn::tensor::{Device, Distribution, Int, Tensor};
use hybridnorm_core::attention::rope::{LinearScaling, YarnScaling};
use hybridnorm_core::{
    Decoder, DecoderConfig, KvCache, NormStyle, Pass, RopeScaling, RotaryConfig,
};
use hybridnorm_testing::{apply, every_device, largest_difference, values};

fn config() -> DecoderConfig {
    DecoderConfig {
        n_kv_heads: 2,
        ..DecoderConfig::new(50, 32, 4, 2)
    }
}

fn tokens(rows: &[&[i64]], device: &Device) -> Tensor<2, Int> {
    let rows = rows
        .iter()
        .map(|row| Tensor::<1, Int>::from_ints(*row, device).unsqueeze());
    Tensor::cat(rows.collect(), 0)
}

/// Logits of each position, `[seq][vocab]`.
fn logits(model: &Decoder, row: &[i64], pass: &mut Pass, device: &Device) -> Vec<Vec<f64>> {
    let logits = model.forward_in(tokens(&[row], device), pass);
    let [_, _, vocab] = logits.dims();
    values(logits).chunks(vocab).map(<[f64]>::to_vec).collect()
}

#[apply(every_device!)]
fn the_future_is_not_seen(#[case] device: &Device) {
    let model = config().init(device).unwrap();
    let a = logits(&model, &[1, 2, 3, 4, 5, 6], &mut Pass::causal(), device);
    let b = logits(&model, &[1, 2, 3, 9, 8, 7], &mut Pass::causal(), device);
    assert_eq!(a[..3], b[..3]);
    assert!(largest_difference(&a[3], &b[3]) > 1e-4);
}

#[apply(every_device!)]
fn a_window_forgets_what_lies_before_it(#[case] device: &Device) {
    // one layer, window 3: position 5 sees tokens 3, 4, 5 only
    let config = DecoderConfig {
        n_layers: 1,
        sliding_window: Some(3),
        ..config()
    };
    let model = config.init(device).unwrap();
    let a = logits(&model, &[1, 2, 3, 4, 5, 6], &mut Pass::causal(), device);
    let b = logits(&model, &[7, 8, 9, 4, 5, 6], &mut Pass::causal(), device);
    assert_eq!(a[5], b[5]);
    assert!(largest_difference(&a[4], &b[4]) > 1e-4);
}

#[apply(every_device!)]
fn documents_do_not_see_each_other(#[case] device: &Device) {
    let model = config().init(device).unwrap();
    let documents = || Pass::documents(tokens(&[&[0, 0, 0, 1, 1, 1]], device));
    let a = logits(&model, &[1, 2, 3, 4, 5, 6], &mut documents(), device);
    let b = logits(&model, &[9, 8, 7, 4, 5, 6], &mut documents(), device);
    assert_eq!(a[3..], b[3..]);
    assert!(largest_difference(&a[2], &b[2]) > 1e-4);
    // the first document is what it is alone
    let alone = logits(&model, &[1, 2, 3], &mut Pass::causal(), device);
    assert!(largest_difference(&a[..3].concat(), &alone.concat()) < 1e-5);
}

/// Any split of a sequence into cached steps gives the logits of the whole.
#[apply(every_device!)]
fn the_cache_changes_nothing(#[case] device: &Device) {
    for (window, global_layers) in [(None, vec![]), (Some(4), vec![]), (Some(4), vec![1])] {
        let config = DecoderConfig {
            sliding_window: window,
            global_layers,
            ..config()
        };
        let model = config.init(device).unwrap();
        let row = [3, 1, 4, 1, 5, 9, 2, 6, 5];
        let whole = logits(&model, &row, &mut Pass::causal(), device);
        for split in [vec![9], vec![1; 9], vec![4, 1, 3, 1]] {
            let mut cache = model.new_cache(9);
            let (mut start, mut found) = (0, Vec::new());
            for n in split {
                let mut pass = Pass::cached(cache);
                found.extend(logits(&model, &row[start..start + n], &mut pass, device));
                cache = pass.into_cache().unwrap();
                start += n;
                assert_eq!(cache.len(), start);
            }
            assert!(largest_difference(&found.concat(), &whole.concat()) < 2e-5);
            assert!(cache.check_room(1).is_err());
        }
    }
}

/// Sequences of different lengths that are decoded side by side give what each gives alone, whoever leaves in between.
#[apply(every_device!)]
fn a_batch_of_unequal_lengths_changes_nothing(#[case] device: &Device) {
    for window in [None, Some(3)] {
        let config = DecoderConfig {
            sliding_window: window,
            ..config()
        };
        let model = config.init(device).unwrap();
        let rows: [&[i64]; 3] = [&[3, 1, 4, 1, 5, 9, 2], &[6, 5], &[3, 5, 8, 9]];
        let next: [&[i64]; 3] = [&[2, 7, 1, 8], &[1, 6, 1, 8], &[4, 1, 4, 2]];
        let alone = [0, 1, 2].map(|i| {
            let row = [rows[i], next[i]].concat();
            logits(&model, &row, &mut Pass::causal(), device)
        });
        let caches = rows.map(|row| {
            let mut pass = Pass::cached(model.new_cache(7));
            logits(&model, row, &mut pass, device);
            pass.into_cache().unwrap()
        });
        let mut cache = KvCache::stack(caches.into(), 11);
        let mut left = vec![0, 1, 2];
        for step in 0..4 {
            if step == 2 {
                // The longest leaves, and its place with it.
                left = vec![2, 1];
                cache = cache.keep(&left);
                assert_eq!(cache.len(), 6);
            }
            let tokens: Vec<_> = left.iter().map(|i| &next[*i][step..=step]).collect();
            let mut pass = Pass::cached(cache);
            let found = model.forward_in(self::tokens(&tokens, device), &mut pass);
            cache = pass.into_cache().unwrap();
            let [_, _, vocab] = found.dims();
            for (found, i) in values(found).chunks(vocab).zip(&left) {
                let expected = &alone[*i][rows[*i].len() + step];
                assert!(largest_difference(found, expected) < 2e-5, "{i}, {step}");
            }
        }
        // Batches are stacked as single sequences are.
        let more = KvCache::stack(vec![cache.clone(), cache.keep(&[1])], 20);
        assert_eq!((more.len(), more.capacity()), (8, 20));
    }
}

/// Grouped-query attention equals multi-head attention with the key and value heads written out.
#[apply(every_device!)]
fn grouped_queries_share_their_head(#[case] device: &Device) {
    let grouped = DecoderConfig {
        n_layers: 1,
        ..config()
    };
    let full = DecoderConfig {
        n_kv_heads: 4,
        ..grouped.clone()
    };
    let a = grouped.init(device).unwrap();
    let mut b = full.init(device).unwrap();
    let d = grouped.head_dim();
    let weight = a.blocks[0].attention.qkv.weight.val();
    let head = |start: usize, i: usize| weight.clone().narrow(1, start + i * d, d);
    let mut columns = vec![weight.clone().narrow(1, 0, 4 * d)];
    for start in [4 * d, 6 * d] {
        columns.extend([0, 0, 1, 1].map(|i| head(start, i)));
    }
    b.blocks[0].attention.qkv.weight = burn::module::Param::from_tensor(Tensor::cat(columns, 1));
    b.blocks[0].attention.output = a.blocks[0].attention.output.clone();
    let row = [3, 1, 4, 1, 5];
    let a = logits(&a, &row, &mut Pass::causal(), device).concat();
    let b = logits(&b, &row, &mut Pass::causal(), device).concat();
    assert!(largest_difference(&a, &b) < 1e-5);
}

/// With QKV-norm, scaling the fused projection leaves attention unchanged (paper, appendix B: the coupling argument);
/// with Pre-Norm it does not.
#[apply(every_device!)]
fn qkv_norm_does_not_feel_the_scale_of_its_projection(#[case] device: &Device) {
    for (placement, free) in [
        ("hybrid", true),
        ("pre-qkv-pre", true),
        ("pre", false),
        ("pre-qk", false),
    ] {
        let mut config = DecoderConfig {
            placement: placement.parse().unwrap(),
            ..config()
        };
        config.norm.epsilon = 1e-12;
        let mut model = config.init(device).unwrap();
        let row = [3, 1, 4, 1, 5];
        let before = logits(&model, &row, &mut Pass::causal(), device).concat();
        for block in &mut model.blocks {
            block.attention.qkv.weight = block.attention.qkv.weight.clone().map(|w| w * 4.0);
        }
        let after = logits(&model, &row, &mut Pass::causal(), device).concat();
        let difference = largest_difference(&before, &after);
        assert_eq!(difference < 1e-4, free, "{placement}: {difference}");
    }
}

/// Sequence lengths and batch sizes that are no multiple of anything; rows do not see each other.
#[apply(every_device!)]
fn rows_and_lengths_are_independent(#[case] device: &Device) {
    let model = config().init(device).unwrap();
    for seq in [1usize, 7, 48, 129] {
        let row: Vec<i64> = (0..seq).map(|i| (i * i % 50) as i64).collect();
        let other: Vec<i64> = row.iter().map(|t| 49 - t).collect();
        let batch = values(model.forward(tokens(&[&other, &row, &other], device)));
        let alone = values(model.forward(tokens(&[&row], device)));
        let n = alone.len();
        assert!(
            largest_difference(&batch[n..2 * n], &alone) < 1e-5,
            "seq {seq}"
        );
        assert!(alone.iter().all(|x| x.is_finite()));
    }
}

/// A view that is not contiguous in memory gives the same numbers as its copy.
#[apply(every_device!)]
fn strided_inputs_are_fine(#[case] device: &Device) {
    let block = hybridnorm_core::BlockConfig::new(32, 4, 48)
        .init(device)
        .unwrap();
    let wide = Tensor::<3>::random([32, 5, 2], Distribution::Normal(0.0, 1.0), device);
    let view = wide.permute([2, 1, 0]);
    let copy = Tensor::<3>::from_data(view.clone().into_data(), device);
    let a = values(block.forward(view, &mut Pass::causal()));
    let b = values(block.forward(copy, &mut Pass::causal()));
    assert!(largest_difference(&a, &b) < 1e-6);
}

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

/// A model of the user's own: two blocks, no decoder, token by token through a cache and one reused pass.
#[apply(every_device!)]
fn blocks_alone_can_be_cached(#[case] device: &Device) {
    use hybridnorm_core::BlockConfig;
    let block = |layer| {
        BlockConfig::new(32, 4, 48)
            .at(layer, 2)
            .init(device)
            .unwrap()
    };
    let blocks = [block(0), block(1)];
    let run =
        |x: Tensor<3>, pass: &mut Pass| blocks.iter().fold(x, |x, block| block.forward(x, pass));
    let x = Tensor::<3>::random([1, 5, 32], Distribution::Normal(0.0, 1.0), device);
    let whole = values(run(x.clone(), &mut Pass::causal()));
    let mut cache = KvCache::new(2, 5);
    let mut found = Vec::new();
    for t in 0..5 {
        let mut pass = Pass::cached(cache);
        found.extend(values(run(x.clone().narrow(1, t, 1), &mut pass)));
        cache = pass.into_cache().unwrap();
        cache.advance(1);
    }
    assert!(largest_difference(&found, &whole) < 1e-5);
    // one pass for two lengths
    let mut pass = Pass::causal();
    let short = values(run(x.clone().narrow(1, 0, 3), &mut pass));
    let long = values(run(x, &mut pass));
    assert!(largest_difference(&short, &whole[..3 * 32]) < 1e-5);
    assert!(largest_difference(&long, &whole) < 1e-6);
}

#[apply(every_device!)]
fn impossible_blocks_are_refused(#[case] device: &Device) {
    use hybridnorm_core::BlockConfig;
    let refuse = |config: BlockConfig, word: &str| {
        let error = config.init(device).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refuse(BlockConfig::new(100, 7, 48), "n_heads = 7");
    refuse(BlockConfig::new(32, 4, 48).at(2, 2), "layer = 2");
    refuse(BlockConfig::new(32, 4, 48).at(0, 0), "layer = 0");
    refuse(BlockConfig::new(32, 4, 0), "d_ff = 0");
    refuse(BlockConfig::new(0, 4, 48), "d_model = 0");
}
