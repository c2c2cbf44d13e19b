//! Which source a sequence comes from.

use super::DataError;
use super::permutation::mix;

/// Bits of the positions that are dealt out.
const BITS: u32 = 32;

/// Deals sequences out to sources in proportion to their weights, with no state and no table.
///
/// Position `n` of the run is sent to the point `reverse(n)` of a circle of 2³² points, its 32 bits read backwards (van
/// der Corput 1935), moved by a distance that the seed names. Each source owns an arc as long as its weight. Of any
/// 2³² positions in a row a source then has exactly its arc, and of the first `n` its share to within `2 (log₂(n)/3 + 1)`
/// sequences, so that a batch is as mixed as the run. How many positions before `n` fell into an arc is
/// a sum over the bits of `n`, which is what makes the place in the source a pure function of `n`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mixture {
    /// Where each source's arc begins, and at last 2³².
    starts: Vec<u64>,
    shift: u64,
}

impl Mixture {
    /// Deals out to as many sources as there are `weights`, whose sum may be anything.
    ///
    /// # Errors
    ///
    /// There is no weight, or one is not a finite number above 0, or one is so small beside the others that its source
    /// would never come.
    pub fn new(weights: &[f64], seed: u64) -> Result<Self, DataError> {
        let refused = |value: String| DataError::OutOfRange {
            field: "weight of a source",
            value,
            allowed: "a number above 0, and at least a 2^-32th of the sum of all",
        };
        let sum: f64 = weights.iter().sum();
        let whole = (1u64 << BITS) as f64;
        let mut starts = vec![0];
        let mut reached = 0.0;
        for &weight in weights {
            if !(weight > 0.0 && weight.is_finite()) {
                return Err(refused(weight.to_string()));
            }
            reached += weight;
            let end = (reached / sum * whole).round() as u64;
            if starts.last().is_some_and(|&start| end <= start) {
                return Err(refused(weight.to_string()));
            }
            starts.push(end);
        }
        match starts.last_mut() {
            Some(last) if *last > 0 => *last = 1 << BITS,
            _ => return Err(refused("missing".to_owned())),
        }
        let shift = mix(seed) >> (u64::BITS - BITS);
        Ok(Self { starts, shift })
    }

    /// The source of sequence `position`, and how many sequences before it came from that source.
    #[must_use]
    pub fn pick(&self, position: u64) -> (usize, u64) {
        let point = self.shifted(reversed(position));
        let source = self.starts.partition_point(|&start| start <= point) - 1;
        let (start, end) = (self.starts[source], self.starts[source + 1]);
        // The arc on the circle before the shift: one piece, or two around the end.
        let (from, to) = (self.unshifted(start), self.unshifted(end));
        let before = |x: u64| count_below(position, x);
        let index = if from < to {
            before(to) - before(from)
        } else {
            position - before(from) + before(to)
        };
        (source, index)
    }

    fn shifted(&self, point: u64) -> u64 {
        (point + self.shift) & ((1 << BITS) - 1)
    }

    fn unshifted(&self, point: u64) -> u64 {
        point.wrapping_sub(self.shift) & ((1 << BITS) - 1)
    }
}

fn reversed(position: u64) -> u64 {
    u64::from((position as u32).reverse_bits())
}

/// How many of the positions `0..end` are sent below the point `x`, which is at most 2³².
fn count_below(end: u64, x: u64) -> u64 {
    let mut count = (end >> BITS) * x;
    let end = end & ((1 << BITS) - 1);
    // `0..end` is, for each bit of `end` that is set, a block of positions that agree above that bit and take every
    // value below it; their points lie evenly spaced from the point of the first on.
    for bit in (0..BITS).filter(|bit| end >> bit & 1 == 1) {
        let first = reversed(end >> (bit + 1) << (bit + 1));
        let step = 1u64 << (BITS - bit);
        count += x.saturating_sub(first).div_ceil(step).min(1 << bit);
    }
    count
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(&[1.0])]
    #[case(&[0.5, 0.5])]
    #[case(&[7.0, 2.0, 1.0])]
    #[case(&[0.001, 100.0, 3.0, 3.0, 0.2])]
    fn each_source_is_walked_through_one_by_one_in_its_share(
        #[case] weights: &[f64],
        #[values(0, 1, 77)] seed: u64,
    ) {
        let mixture = Mixture::new(weights, seed).unwrap();
        let sum: f64 = weights.iter().sum();
        let mut counts = vec![0u64; weights.len()];
        for position in 0..20_000 {
            let (source, index) = mixture.pick(position);
            assert_eq!(index, counts[source], "position {position}");
            counts[source] += 1;
            for (&count, weight) in counts.iter().zip(weights) {
                let expected = weight / sum * (position + 1) as f64;
                assert!(
                    (count as f64 - expected).abs() < 16.0,
                    "{count} of {expected}"
                );
            }
        }
    }

    #[test]
    fn the_shares_of_a_whole_turn_are_exact_and_turns_follow_each_other() {
        let mixture = Mixture::new(&[3.0, 1.0], 5).unwrap();
        let turn = 1u64 << 32;
        let (mut near, mut far) = ([None; 2], [None; 2]);
        for position in 0..100 {
            let (source, index) = mixture.pick(position);
            near[source].get_or_insert(index);
            let (source, index) = mixture.pick(10 * turn + position);
            far[source].get_or_insert(index);
        }
        assert_eq!(near, [Some(0), Some(0)]);
        assert_eq!(far, [Some(10 * turn / 4 * 3), Some(10 * turn / 4)]);
    }

    #[test]
    fn seeds_deal_in_other_orders() {
        let order = |seed| {
            let mixture = Mixture::new(&[2.0, 1.0], seed).unwrap();
            (0..64).map(|n| mixture.pick(n).0).collect::<Vec<_>>()
        };
        assert_eq!(order(3), order(3));
        assert_ne!(order(3), order(4));
    }

    #[rstest]
    #[case(&[])]
    #[case(&[0.0])]
    #[case(&[1.0, -1.0])]
    #[case(&[1.0, f64::NAN])]
    #[case(&[1.0, f64::INFINITY])]
    #[case(&[1e-12, 1.0])]
    #[case(&[1.0, 1e-12])]
    fn weights_that_mean_nothing_are_refused(#[case] weights: &[f64]) {
        let error = Mixture::new(weights, 0).unwrap_err();
        assert!(error.to_string().contains("weight of a source"), "{error}");
    }
}
