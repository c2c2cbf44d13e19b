//! How long the fast paths of a backend that computes at once (`flex`) have taken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
#[cfg(feature = "flex")]
use std::time::Instant;

/// What is timed, forward and backward passes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// [`rms_norm`](crate::rms_norm()).
    RmsNorm,
    /// [`qkv_norm_rope`](crate::qkv_norm_rope).
    QkvNormRope,
    /// [`attention`](crate::attention()).
    Attention,
    /// [`swiglu`](crate::swiglu()).
    SwiGlu,
    /// [`cross_entropy`](crate::cross_entropy()).
    CrossEntropy,
    /// [`square_sum`](crate::square_sum) and [`adamw`](crate::adamw()).
    Optimizer,
    /// [`project`](crate::project()).
    Products,
}

impl Work {
    /// All of it, and how it is called.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::RmsNorm, "norms"),
        (Self::QkvNormRope, "norms inside attention, rotation"),
        (Self::Attention, "attention"),
        (Self::SwiGlu, "SwiGLU"),
        (Self::CrossEntropy, "cross-entropy"),
        (Self::Optimizer, "gradient norm, AdamW"),
        (Self::Products, "products with the weights"),
    ];
}

static NANOSECONDS: [AtomicU64; Work::ALL.len()] = [const { AtomicU64::new(0) }; Work::ALL.len()];

/// The time since the process began, in the order of [`Work::ALL`]; zeros where only other backends computed.
pub fn times() -> [Duration; Work::ALL.len()] {
    NANOSECONDS
        .each_ref()
        .map(|spent| Duration::from_nanos(spent.load(Ordering::Relaxed)))
}

/// Adds the time of `f` to that of `work`.
#[cfg(feature = "flex")]
pub(crate) fn timed<T>(work: Work, f: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = f();
    let spent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    NANOSECONDS[work as usize].fetch_add(spent, Ordering::Relaxed);
    done
}
