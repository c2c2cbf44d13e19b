//! Training batches as a pure function of (corpus, seed, step).

use std::sync::Arc;

use super::permutation::mix;
use super::repetition::repeats;
use super::{DataError, Mixture, Permutation, TokenSource};

/// Says which tokens a step trains on, with no state at all: resuming a run needs the number of its step.
///
/// Each source is a ring. In each of its epochs it is cut, from an offset that (seed, epoch) names, into
/// `tokens / seq` windows of `seq` targets, each with the one token before it as first input; the windows are
/// visited in the [`Permutation`] of (seed, epoch). So a token is a target at most once per epoch; the fewer than
/// `seq` tokens left over just before the offset sit that epoch out, and are others in the next. Where there are several
/// sources, the [`Mixture`] of their weights says which one a sequence comes from.
#[derive(Debug, Clone)]
pub struct Batches {
    sources: Vec<Ring>,
    mixture: Mixture,
    seq: usize,
    batch: usize,
    repetition_filter: bool,
}

/// What one step trains on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepBatch {
    /// `[batch, seq + 1]` token ids in row-major order.
    pub tokens: Vec<u32>,
    /// `[batch]`: the sequences whose labels count for nothing.
    pub masked: Vec<bool>,
}

impl StepBatch {
    /// `batch` sequences, all of whose labels count.
    #[must_use]
    pub fn whole(tokens: Vec<u32>, batch: usize) -> Self {
        Self {
            tokens,
            masked: vec![false; batch],
        }
    }
}

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The source, counted from 0.
    pub source: usize,
    /// The position of the sequence's first token in it.
    pub token: u64,
}

/// A source and the key of its order.
#[derive(Debug, Clone)]
struct Ring {
    tokens: Arc<dyn TokenSource>,
    windows: u64,
    seed: u64,
}

impl Batches {
    /// Batches of `batch` sequences of `seq` inputs and as many targets, all from one source.
    ///
    /// # Errors
    ///
    /// `seq` or `batch` is 0, or the source has fewer than `seq + 1` tokens.
    pub fn new(
        source: Arc<dyn TokenSource>,
        seq: usize,
        batch: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        Self::mixed(vec![(source, 1.0)], seq, batch, seed)
    }

    /// Batches of `batch` sequences of `seq` inputs and as many targets, from several sources by weight.
    ///
    /// # Errors
    ///
    /// `seq` or `batch` is 0, a source has fewer than `seq + 1` tokens, or [`Mixture::new`] refuses the weights.
    pub fn mixed(
        sources: Vec<(Arc<dyn TokenSource>, f64)>,
        seq: usize,
        batch: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        require_positive("seq", seq)?;
        require_positive("batch", batch)?;
        let weights: Vec<f64> = sources.iter().map(|(_, weight)| *weight).collect();
        let mixture = Mixture::new(&weights, seed)?;
        let ring = |(index, (tokens, _)): (usize, (Arc<dyn TokenSource>, f64))| {
            let length = tokens.tokens();
            let needed = (seq as u64).saturating_add(1);
            if length < needed {
                return Err(DataError::TooShort {
                    split: "training",
                    tokens: length,
                    needed,
                });
            }
            Ok(Ring {
                tokens,
                windows: length / seq as u64,
                // Sources of the same length must not be walked through in the same order.
                seed: match index {
                    0 => seed,
                    index => mix(seed ^ mix(index as u64)),
                },
            })
        };
        Ok(Self {
            sources: sources
                .into_iter()
                .enumerate()
                .map(ring)
                .collect::<Result<_, _>>()?,
            mixture,
            seq,
            batch,
            repetition_filter: false,
        })
    }

    /// Masks the labels of sequences that [repeat themselves](repeats).
    #[must_use]
    pub fn with_repetition_filter(mut self, filter: bool) -> Self {
        self.repetition_filter = filter;
        self
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
    ///
    /// # Errors
    ///
    /// The source cannot be read.
    pub fn sequence(&self, global_index: u64) -> Result<Vec<u32>, DataError> {
        let Place { source, token } = self.place(global_index);
        self.sources[source].tokens.window(token, self.seq + 1)
    }

    /// Where sequence `global_index` stands. Past the end of a source it goes on at its beginning.
    #[must_use]
    pub fn place(&self, global_index: u64) -> Place {
        let (source, index) = self.mixture.pick(global_index);
        Place {
            source,
            token: self.sources[source].start(index, self.seq),
        }
    }

    /// The sequences of step `step`, counted from 0.
    #[must_use]
    pub fn sequences(&self, step: u64) -> std::ops::Range<u64> {
        let first = step.saturating_mul(self.batch as u64);
        first..first.saturating_add(self.batch as u64)
    }

    /// The ids of step `step`, counted from 0: row `r` is sequence `step * batch + r`.
    ///
    /// # Errors
    ///
    /// A source cannot be read.
    pub fn batch(&self, step: u64) -> Result<StepBatch, DataError> {
        let mut batch = StepBatch {
            tokens: Vec::with_capacity(self.batch * (self.seq + 1)),
            masked: Vec::with_capacity(self.batch),
        };
        for index in self.sequences(step) {
            let ids = self.sequence(index)?;
            let masked = self.repetition_filter && repeats(&ids);
            batch.masked.push(masked);
            batch.tokens.extend(ids);
        }
        Ok(batch)
    }
}

impl Ring {
    /// The first input of the `index`-th sequence of this source.
    fn start(&self, index: u64, seq: usize) -> u64 {
        let (epoch, index) = (index / self.windows, index % self.windows);
        let window = Permutation::new(self.windows, self.seed, epoch).apply(index);
        (self.offset(epoch) + window * seq as u64) % self.tokens.tokens()
    }

    /// Where the first window of an epoch begins, anywhere in the source. A keyed hash scaled to the length.
    fn offset(&self, epoch: u64) -> u64 {
        let random = mix(mix(self.seed).wrapping_add(mix(!epoch)));
        ((u128::from(random) * u128::from(self.tokens.tokens())) >> 64) as u64
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

    use super::super::TokenStore;
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
            assert_eq!(batches.batch(step).unwrap(), again.batch(step).unwrap());
            assert_eq!(batches.batch(step).unwrap().tokens.len(), 4 * 9);
        }
    }

    #[test]
    fn steps_and_seeds_give_other_batches() {
        let batches = Batches::new(counting(1000), 8, 4, 7).unwrap();
        let other = Batches::new(counting(1000), 8, 4, 8).unwrap();
        assert_ne!(batches.batch(0).unwrap(), batches.batch(1).unwrap());
        assert_ne!(batches.batch(0).unwrap(), other.batch(0).unwrap());
    }

    #[test]
    fn a_row_is_the_sequence_of_its_global_index() {
        let batches = Batches::new(counting(1000), 8, 4, 7).unwrap();
        let batch = batches.batch(5).unwrap().tokens;
        for (row, index) in batch.chunks(9).zip(20..) {
            assert_eq!(row, batches.sequence(index).unwrap());
        }
        // The order of data does not depend on how sequences are grouped into steps.
        let wider = Batches::new(counting(1000), 8, 20, 7).unwrap();
        assert_eq!(wider.batch(1).unwrap().tokens[..4 * 9], batch);
    }

    #[rstest]
    #[case::exact(96, 8)]
    #[case::remainder(103, 8)]
    #[case::shortest(9, 8)]
    #[case::tokens(5, 1)]
    fn an_epoch_makes_each_token_a_target_at_most_once(#[case] length: u32, #[case] seq: usize) {
        let batches = Batches::new(counting(length), seq, 1, 3).unwrap();
        let windows = u64::from(length) / seq as u64;
        for epoch in 0..4 {
            let mut targets = BTreeSet::new();
            for index in epoch * windows..(epoch + 1) * windows {
                let sequence = batches.sequence(index).unwrap();
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
            .map(|epoch| batches.sequence(epoch * 100).unwrap()[0] % 10)
            .collect();
        assert_eq!(phases.len(), 10);
    }

    #[test]
    fn epochs_visit_the_windows_in_other_orders() {
        let batches = Batches::new(counting(1000), 10, 1, 3).unwrap();
        // Were the order the same, each epoch would be the one before moved by one distance around the ring.
        let distances: BTreeSet<u32> = (0..100)
            .map(|index| [index, index + 100].map(|index| batches.sequence(index).unwrap()[0]))
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

    #[test]
    fn a_mixture_walks_through_each_source_as_if_it_were_alone() {
        let long = counting(1000);
        let mut short = TokenStore::for_vocab(1 << 17);
        short.extend(&(70_000..70_300).collect::<Vec<_>>());
        let sources: Vec<(Arc<dyn TokenSource>, f64)> = vec![(long, 3.0), (Arc::new(short), 1.0)];
        let batches = Batches::mixed(sources, 10, 4, 5).unwrap();
        let mut targets = [BTreeSet::new(), BTreeSet::new()];
        let mut counts = [0usize; 2];
        // 120 sequences are 90 windows of the first source's 100, and one epoch of the second's 30.
        for index in 0..120 {
            let sequence = batches.sequence(index).unwrap();
            let source = usize::from(sequence[0] >= 70_000);
            counts[source] += 1;
            targets[source].extend(sequence[1..].iter().copied());
        }
        assert!(counts[0].abs_diff(90) < 3, "{counts:?}");
        // No target came twice but where the second source's epoch may have turned.
        assert_eq!(targets[0].len(), counts[0] * 10);
        assert!(targets[1].len() >= counts[1].min(30) * 10 - 20);
        assert_eq!(batches.batch(7).unwrap(), batches.batch(7).unwrap());
    }

    #[test]
    fn a_place_is_where_the_sequence_is_read() {
        let batches = Batches::new(counting(1000), 8, 4, 7).unwrap();
        for index in batches.sequences(3) {
            let place = batches.place(index);
            assert_eq!(place.source, 0);
            assert_eq!(batches.sequence(index).unwrap()[0], place.token as u32);
        }
        assert_eq!(batches.sequences(3), 12..16);
    }

    #[test]
    fn the_filter_masks_the_sequences_that_repeat_and_no_other() {
        let mut store = TokenStore::for_vocab(1000);
        store.extend(&(0..500).collect::<Vec<_>>());
        store.extend(&[7; 500]);
        let plain = Batches::new(Arc::new(store), 50, 20, 1).unwrap();
        let filtered = plain.clone().with_repetition_filter(true);
        assert_eq!(plain.batch(0).unwrap().masked, [false; 20]);
        let batch = filtered.batch(0).unwrap();
        assert_eq!(batch.tokens, plain.batch(0).unwrap().tokens);
        for (row, &masked) in batch.tokens.chunks(51).zip(&batch.masked) {
            let sevens = row.iter().filter(|&&id| id == 7).count();
            assert_eq!(masked, sevens >= 32, "{row:?}");
        }
        assert!(batch.masked.contains(&true) && batch.masked.contains(&false));
    }
}
