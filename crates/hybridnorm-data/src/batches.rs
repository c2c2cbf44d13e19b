//! Training batches as a pure function of (corpus, seed, step).

use std::sync::Arc;

use super::permutation::mix;
use super::{DataError, Permutation, TokenStore};

/// Says which tokens a step trains on, with no state at all: resuming a run needs the number of its step.
///
/// The store is a ring. In each epoch it is cut, from an offset that (seed, epoch) names, into
/// `tokens / seq` windows of `seq` targets, each with the one token before it as first input; the windows are
/// visited in the [`Permutation`] of (seed, epoch). So a token is a target at most once per epoch; the fewer than
/// `seq` tokens left over just before the offset sit that epoch out, and are others in the next.
#[derive(Debug, Clone)]
pub struct Batches {
    store: Arc<TokenStore>,
    seq: usize,
    batch: usize,
    seed: u64,
}

impl Batches {
    /// Batches of `batch` sequences of `seq` inputs and as many targets.
    ///
    /// # Errors
    ///
    /// `seq` or `batch` is 0, or the store has fewer than `seq + 1` tokens.
    pub fn new(
        store: Arc<TokenStore>,
        seq: usize,
        batch: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        require_positive("seq", seq)?;
        require_positive("batch", batch)?;
        if store.len() <= seq {
            return Err(DataError::TooShort {
                split: "training",
                tokens: store.len(),
                needed: seq.saturating_add(1),
            });
        }
        Ok(Self {
            store,
            seq,
            batch,
            seed,
        })
    }

    /// Sequences in one epoch.
    #[must_use]
    pub fn windows_per_epoch(&self) -> u64 {
        (self.store.len() / self.seq) as u64
    }

    /// Targets in one step: `batch * seq` tokens.
    #[must_use]
    pub fn tokens_per_step(&self) -> u64 {
        self.batch as u64 * self.seq as u64
    }

    /// Inputs, and targets, per sequence.
    #[must_use]
    pub fn seq(&self) -> usize {
        self.seq
    }

    /// Sequences per step.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// The `seq + 1` token ids of sequence `global_index`, counted from the start of the run over all epochs.
    /// Inputs are all but the last, targets all but the first.
    #[must_use]
    pub fn sequence(&self, global_index: u64) -> Vec<u32> {
        let windows = self.windows_per_epoch();
        let (epoch, index) = (global_index / windows, global_index % windows);
        let window = Permutation::new(windows, self.seed, epoch).apply(index);
        let start = self.offset(epoch) + window as usize * self.seq;
        self.store.window(start, self.seq + 1)
    }

    /// The ids of step `step`, counted from 0: `[batch, seq + 1]` in row-major order, where row `r` is sequence
    /// `step * batch + r`.
    #[must_use]
    pub fn batch(&self, step: u64) -> Vec<u32> {
        let first = step * self.batch as u64;
        (first..first + self.batch as u64)
            .flat_map(|index| self.sequence(index))
            .collect()
    }

    /// Where the first window of an epoch begins, anywhere in the store. A keyed hash scaled to the length.
    fn offset(&self, epoch: u64) -> usize {
        let random = mix(mix(self.seed).wrapping_add(mix(!epoch)));
        ((u128::from(random) * self.store.len() as u128) >> 64) as usize
    }
}

pub(super) fn require_positive(field: &'static str, value: usize) -> Result<(), DataError> {
    if value == 0 {
        return Err(DataError::OutOfRange {
            field,
            value: value.to_string(),
            allowed: "a whole number of at least 1",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rstest::rstest;

    use super::*;

    /// A store whose ids are their own positions.
    fn counting(length: u32) -> Arc<TokenStore> {
        let mut store = TokenStore::for_vocab(length as usize);
        store.extend(&(0..length).collect::<Vec<_>>());
        Arc::new(store)
    }

    #[test]
    fn a_step_always_gives_the_same_batch() {
        let batches = Batches::new(counting(1000), 8, 4, 7).unwrap();
        let again = Batches::new(counting(1000), 8, 4, 7).unwrap();
        for step in [3, 0, 1_000_000, 3] {
            assert_eq!(batches.batch(step), again.batch(step));
            assert_eq!(batches.batch(step).len(), 4 * 9);
        }
    }

    #[test]
    fn steps_and_seeds_give_other_batches() {
        let batches = Batches::new(counting(1000), 8, 4, 7).unwrap();
        let other = Batches::new(counting(1000), 8, 4, 8).unwrap();
        assert_ne!(batches.batch(0), batches.batch(1));
        assert_ne!(batches.batch(0), other.batch(0));
    }

    #[test]
    fn a_row_is_the_sequence_of_its_global_index() {
        let batches = Batches::new(counting(1000), 8, 4, 7).unwrap();
        let batch = batches.batch(5);
        for (row, index) in batch.chunks(9).zip(20..) {
            assert_eq!(row, batches.sequence(index));
        }
        // The order of data does not depend on how sequences are grouped into steps.
        let wider = Batches::new(counting(1000), 8, 20, 7).unwrap();
        assert_eq!(wider.batch(1)[..4 * 9], batch);
    }

    #[rstest]
    #[case::exact(96, 8)]
    #[case::remainder(103, 8)]
    #[case::shortest(9, 8)]
    #[case::tokens(5, 1)]
    fn an_epoch_makes_each_token_a_target_at_most_once(#[case] length: u32, #[case] seq: usize) {
        let batches = Batches::new(counting(length), seq, 1, 3).unwrap();
        let windows = batches.windows_per_epoch();
        assert_eq!(windows, u64::from(length) / seq as u64);
        for epoch in 0..4 {
            let mut targets = BTreeSet::new();
            for index in epoch * windows..(epoch + 1) * windows {
                let sequence = batches.sequence(index);
                assert_eq!(sequence.len(), seq + 1);
                for pair in sequence.windows(2) {
                    assert_eq!(pair[1], (pair[0] + 1) % length, "neighbours in the ring");
                    assert!(targets.insert(pair[1]), "token {} came twice", pair[1]);
                }
            }
            assert_eq!(targets.len() as u64, windows * seq as u64);
        }
    }

    #[test]
    fn epochs_cut_the_store_at_other_places() {
        let batches = Batches::new(counting(1000), 10, 1, 3).unwrap();
        let phases: BTreeSet<u32> = (0..50)
            .map(|epoch| batches.sequence(epoch * 100)[0] % 10)
            .collect();
        assert_eq!(phases.len(), 10);
    }

    #[test]
    fn epochs_visit_the_windows_in_other_orders() {
        let batches = Batches::new(counting(1000), 10, 1, 3).unwrap();
        // Were the order the same, each epoch would be the one before moved by one distance around the ring.
        let distances: BTreeSet<u32> = (0..100)
            .map(|index| [index, index + 100].map(|index| batches.sequence(index)[0]))
            .map(|[first, second]| (1000 + second - first) % 1000)
            .collect();
        assert!(distances.len() > 10, "{distances:?}");
    }

    #[test]
    fn a_store_shorter_than_one_sequence_is_refused() {
        let error = Batches::new(counting(8), 8, 1, 0).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::TooShort {
                    split: "training",
                    tokens: 8,
                    needed: 9
                }
            ),
            "{error}"
        );
        assert!(Batches::new(counting(9), 8, 1, 0).is_ok());
    }

    #[rstest]
    #[case(0, 1, "seq")]
    #[case(1, 0, "batch")]
    fn zero_is_refused_by_name(#[case] seq: usize, #[case] batch: usize, #[case] name: &str) {
        let error = Batches::new(counting(8), seq, batch, 0).unwrap_err();
        assert!(
            matches!(error, DataError::OutOfRange { field, .. } if field == name),
            "{error}"
        );
    }
}
