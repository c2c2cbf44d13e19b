//! What a run shows and logs.

use burn::tensor::Device;
use hybridnorm_testing::{apply, every_device};
use hybridnorm_train::engine::{Console, Record, train};
use tempfile::TempDir;

use crate::tiny;

#[apply(every_device!)]
fn plain_lines_can_be_searched(#[case] device: &Device) {
    let (dir, screen) = (TempDir::new().unwrap(), tiny::Screen::default());
    let mut request = tiny::request(tiny::config(4, 4), dir.path(), device, false);
    request.console = Console::plain(screen.clone());
    train(request).unwrap();
    let text = screen.text();
    let starts = |start: &str| text.lines().filter(|l| l.starts_with(start)).count();
    assert_eq!(starts("step 1/4  loss 3."), 1, "{text}");
    assert_eq!(starts("step 4/4  loss "), 1, "{text}");
    assert_eq!(
        starts("evaluation at step 2/4  2.0000 nats/token  3.0000 bits/byte"),
        1
    );
    assert_eq!(starts("evaluation at step 4/4"), 1, "{text}");
    assert_eq!(starts("checkpoint "), 2, "{text}");
    for part in ["  lr ", "  grad-norm ", " tok/s", "  ETA 0s"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[apply(every_device!)]
fn the_log_holds_steps_and_evaluations_in_order(#[case] device: &Device) {
    let dir = TempDir::new().unwrap();
    tiny::run(tiny::config(4, 4), dir.path(), device, false).unwrap();
    let kinds: Vec<(u64, bool)> = tiny::records(dir.path())
        .iter()
        .map(|record| (record.step(), matches!(record, Record::Step(_))))
        .collect();
    let expected = [
        (1, true),
        (2, true),
        (2, false),
        (3, true),
        (4, true),
        (4, false),
    ];
    assert_eq!(kinds, expected);
}
