//! What attention may see: the future, windows, documents; and what it must not depend on.

use burn::tensor::{Device, Distribution, Tensor};
use hybridnorm_core::{BlockConfig, DecoderConfig, Pass, QkvNormSites};
use hybridnorm_testing::{apply, every_device, largest_difference, values};

use crate::small::{config, logits, tokens};

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
    let block = BlockConfig::new(32, 4, 48).init(device).unwrap();
    let wide = Tensor::<3>::random([32, 5, 2], Distribution::Normal(0.0, 1.0), device);
    let view = wide.permute([2, 1, 0]);
    let copy = Tensor::<3>::from_data(view.clone().into_data(), device);
    let a = values(block.forward(view, &mut Pass::causal()));
    let b = values(block.forward(copy, &mut Pass::causal()));
    assert!(largest_difference(&a, &b) < 1e-6);
}

#[apply(every_device!)]
fn impossible_blocks_are_refused(#[case] device: &Device) {
    let refuse = |config: BlockConfig, word: &str| {
        let error = config.init(device).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    refuse(BlockConfig::new(100, 7, 48), "n_heads = 7");
    refuse(BlockConfig::new(32, 4, 48).at(2, 2), "layer = 2");
    refuse(BlockConfig::new(32, 4, 48).at(0, 0), "layer = 0");
    refuse(BlockConfig::new(32, 4, 0), "d_ff = 0");
    refuse(BlockConfig::new(0, 4, 48), "d_model = 0");
    let mut normed = BlockConfig::new(32, 4, 48);
    normed.attention.norms = QkvNormSites::QKV;
    refuse(normed, "attention.norms = _QKV");
    let mut styled = BlockConfig::new(32, 4, 48);
    styled.attention.norm_style.bias = true;
    refuse(styled.clone(), "attention.norm_style");
    styled.norm_style.bias = true;
    assert!(styled.init(device).is_ok());
}
