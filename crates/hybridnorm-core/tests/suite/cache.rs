//! What the key/value cache must not change.

use burn::tensor::{Device, Distribution, Tensor};
use hybridnorm_core::{BlockConfig, DecoderConfig, KvCache, Pass};
use hybridnorm_testing::{apply, every_device, largest_difference, values};

use crate::small::{config, logits, tokens};

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
        let caches = [0, 1, 2].map(|i| {
            let mut cache = model.new_cache(7);
            let found = values(model.next_logits(tokens(&[rows[i]], device), &mut cache));
            let expected = &alone[i][rows[i].len() - 1];
            assert!(largest_difference(&found, expected) < 2e-5, "{i}");
            cache
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
            let new: Vec<_> = left.iter().map(|i| &next[*i][step..=step]).collect();
            let found = model.next_logits(tokens(&new, device), &mut cache);
            let [_, vocab] = found.dims();
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

/// A model of the user's own: two blocks, no decoder, token by token through a cache and one reused pass.
#[apply(every_device!)]
fn blocks_alone_can_be_cached(#[case] device: &Device) {
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
