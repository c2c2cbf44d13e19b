//! How long the fast paths of a backend that computes at once (`flex`) have taken, by operation and layer.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[cfg(feature = "flex")]
use web_time::Instant;

/// What is timed, forward and backward passes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// [`norm`](crate::norm()).
    Norm,
    /// [`qkv_norm_rope`](crate::qkv_norm_rope).
    QkvNormRope,
    /// [`attention`](crate::attention()).
    Attention,
    /// [`glu`](crate::glu()) and [`gated`](crate::gated).
    Gates,
    /// [`cross_entropy`](crate::cross_entropy()).
    CrossEntropy,
    /// [`square_sum`](crate::square_sum) and [`adamw`](crate::adamw()).
    Optimizer,
    /// [`project`](crate::project()).
    Products,
    /// [`grouped_matmul`](crate::grouped_matmul).
    Experts,
    /// [`dispatch`](crate::dispatch()) and [`combine`](crate::combine()).
    Routes,
}

impl Work {
    /// All of it, and how it is called.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Norm, "norms"),
        (Self::QkvNormRope, "norms inside attention, rotation"),
        (Self::Attention, "attention"),
        (Self::Gates, "gates"),
        (Self::CrossEntropy, "cross-entropy"),
        (Self::Optimizer, "gradient norm, AdamW"),
        (Self::Products, "products with the weights"),
        (Self::Experts, "products of experts"),
        (Self::Routes, "the way to experts and back"),
    ];
}

/// Layers that are told apart; what deeper ones take is counted with the last of them.
const LAYERS: usize = 256;

/// A time for each of [`Work::ALL`].
pub type Times = [Duration; Work::ALL.len()];

/// The layer that an operation belongs to, and its gradient with it: 0 outside all layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(usize);

impl Place {
    /// Where this thread is computing.
    pub(crate) fn here() -> Self {
        HERE.get()
    }

    /// Counts what `f` computes here.
    pub(crate) fn at<T>(self, f: impl FnOnce() -> T) -> T {
        struct Back(Place);
        impl Drop for Back {
            fn drop(&mut self) {
                HERE.set(self.0);
            }
        }
        let _back = Back(HERE.replace(self));
        f()
    }
}

thread_local! {
    static HERE: Cell<Place> = const { Cell::new(Place(0)) };
}

static NANOSECONDS: [[AtomicU64; Work::ALL.len()]; LAYERS + 1] =
    [const { [const { AtomicU64::new(0) }; Work::ALL.len()] }; LAYERS + 1];

/// Counts what `f` computes as that of layer `layer`, from 0, and the gradients of that too.
pub fn in_layer<T>(layer: usize, f: impl FnOnce() -> T) -> T {
    Place((layer + 1).min(LAYERS)).at(f)
}

/// The time since the process began outside all layers, and then in each of `layers`; zeros where only other backends computed.
pub fn times(layers: usize) -> Vec<Times> {
    let places = NANOSECONDS.iter().take(layers.saturating_add(1));
    let times = places.map(|place| {
        place
            .each_ref()
            .map(|spent| Duration::from_nanos(spent.load(Ordering::Relaxed)))
    });
    times.collect()
}

/// Adds the time of `f` to that of `work`.
#[cfg(feature = "flex")]
pub(crate) fn timed<T>(work: Work, f: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let done = f();
    let spent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let Place(place) = Place::here();
    NANOSECONDS[place][work as usize].fetch_add(spent, Ordering::Relaxed);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_ends_with_what_is_computed_there() {
        assert_eq!(Place::here(), Place(0));
        in_layer(3, || {
            assert_eq!(Place::here(), Place(4));
            Place(1).at(|| assert_eq!(Place::here(), Place(1)));
            assert_eq!(Place::here(), Place(4));
        });
        assert_eq!(Place::here(), Place(0));
        assert_eq!(in_layer(usize::MAX - 1, Place::here), Place(LAYERS));
    }
}
