//! Experts with a limit.

use burn::tensor::Device;
use hybridnorm_moe::SparseConfig;
use hybridnorm_testing::{apply, every_device};

use crate::layer::{Found, check, chosen, input, layer};

/// Copies beyond capacity add nothing and have no gradient; the written-out layer is told which, by hand.
#[apply(every_device!)]
fn copies_beyond_capacity_are_dropped(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig {
        capacity_factor: Some(0.5),
        ..SparseConfig::new(4, 2, 6)
    };
    let free = SparseConfig {
        capacity_factor: None,
        ..config.clone()
    };
    let x = input(2, 10, &device);
    let Found { routing } = check(&free, &layer(&free, &device), x.clone(), None);
    // 20 tokens, two copies each: half of the equal share of ten is five. First choices go first.
    let (chosen, mut taken) = (chosen(&routing), [0; 4]);
    let mut kept = vec![0.0; 40];
    for copy in (0..40).step_by(2).chain((1..40).step_by(2)) {
        let taken = &mut taken[chosen[copy] as usize];
        if *taken < 5 {
            *taken += 1;
            kept[copy] = 1.0;
        }
    }
    let Found { routing } = check(&config, &layer(&config, &device), x, Some(&kept));
    assert_eq!(
        routing.dropped,
        kept.iter().filter(|kept| **kept == 0.0).count()
    );
    assert!(routing.dropped >= 20);
}

/// A generous capacity drops nothing.
#[apply(every_device!)]
fn room_for_all_is_dropless(#[case] device: &Device) {
    let device = device.clone().autodiff();
    let config = SparseConfig {
        capacity_factor: Some(4.0),
        ..SparseConfig::new(4, 2, 6)
    };
    let Found { routing } = check(
        &config,
        &layer(&config, &device),
        input(2, 10, &device),
        None,
    );
    assert_eq!(routing.dropped, 0);
}
