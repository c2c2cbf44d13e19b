#![no_main]

#[path = "../../tests/hostile/targets.rs"]
#[allow(dead_code)]
mod targets;

use std::sync::LazyLock;

static PLACE: LazyLock<targets::Checkpoint> = LazyLock::new(targets::Checkpoint::new);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    PLACE.state(bytes);
});
