//! The switch between fast paths and the compositions that define them.

use std::sync::atomic::{AtomicBool, Ordering};

static REFERENCE: AtomicBool = AtomicBool::new(false);

/// Lets this process compute the norms, attention, activations and losses of this crate by their compositions, and their gradients by
/// Burn's own differentiation of those, from now on: slow, and what every fast path is held against.
pub fn use_reference_ops(on: bool) {
    REFERENCE.store(on, Ordering::Relaxed);
}

/// Whether [`use_reference_ops`] is in force.
pub fn reference_ops() -> bool {
    REFERENCE.load(Ordering::Relaxed)
}
