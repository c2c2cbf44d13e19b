//! The schedules and the clipping's warm-up at points where their values are plain.

use hybridnorm_train::recipe::{Clip, ClipWarmup, Decay, DecayShape, Schedule, ScheduleShape};
use rstest::rstest;

fn schedule(shape: ScheduleShape, decay: Decay) -> Schedule {
    Schedule {
        shape,
        peak: 2.0,
        floor: 0.25,
        warmup_from: 1.0,
        warmup: 100,
        total: 1000,
        decay,
    }
}

#[rstest]
#[case::line(DecayShape::Linear, [2.0, 2.0 - 1.5 * 0.25, 1.25, 0.5])]
// One minus the root of a quarter is a half.
#[case::root(DecayShape::OneMinusSqrt, [2.0, 1.25, 0.5 + 1.5 * (1.0 - 0.5f64.sqrt()), 0.5])]
fn wsd_is_flat_and_then_decays(#[case] shape: DecayShape, #[case] decay: [f64; 4]) {
    let wsd = schedule(
        ScheduleShape::Wsd,
        Decay {
            fraction: 0.4,
            shape,
        },
    );
    for (t, lr) in [(0, 1.0), (50, 1.5), (100, 2.0), (350, 2.0), (599, 2.0)] {
        assert_eq!(wsd.at(t), lr, "{t}");
    }
    for (t, lr) in [600, 700, 800, 1000].into_iter().zip(decay) {
        assert!((wsd.at(t) - lr).abs() < 1e-12, "{t}: {}", wsd.at(t));
    }
    assert_eq!(wsd.at(5000), 0.5);
}

#[test]
fn a_decay_from_the_end_of_the_warm_up_is_the_linear_schedule() {
    let decay = Decay {
        fraction: 0.9,
        shape: DecayShape::Linear,
    };
    let wsd = schedule(ScheduleShape::Wsd, decay);
    let linear = schedule(ScheduleShape::Linear, decay);
    for t in 0..1001 {
        assert!((wsd.at(t) - linear.at(t)).abs() < 1e-12, "{t}");
    }
}

#[rstest]
#[case::falls(5.0, [5.0, 4.0, 3.0, 1.0])]
#[case::rises(0.2, [0.2, 0.4, 0.6, 1.0])]
fn clipping_moves_in_a_straight_line(#[case] from: f64, #[case] expected: [f64; 4]) {
    let clip = Clip {
        max_norm: 1.0,
        warmup: Some(ClipWarmup { from, tokens: 400 }),
    };
    for (t, expected) in [0, 100, 200, 400].into_iter().zip(expected) {
        assert!((clip.at(t) - expected).abs() < 1e-12, "{t}");
    }
    assert_eq!(clip.at(401), 1.0);
    let plain = Clip {
        warmup: None,
        ..clip
    };
    assert_eq!(plain.at(0), 1.0);
}
