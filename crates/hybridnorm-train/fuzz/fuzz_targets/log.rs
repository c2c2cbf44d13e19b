#![no_main]

#[path = "../../tests/hostile/targets.rs"]
#[allow(dead_code)]
mod targets;

use std::sync::LazyLock;

static PLACE: LazyLock<targets::Run> = LazyLock::new(targets::Run::new);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    PLACE.log(bytes);
});
