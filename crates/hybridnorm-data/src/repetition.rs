//! The authors' filter against sequences that repeat themselves.

/// Lengths of the pattern that is looked for, in tokens.
const PERIODS: std::ops::RangeInclusive<usize> = 1..=13;
/// How often in a row a pattern must stand for its sequence to count for nothing.
const MAX_COUNT: usize = 32;

/// Whether a pattern of 1 to 13 tokens stands 32 times or more in a row anywhere in `ids`. The labels of such a
/// sequence are masked, all of them (OLMo's `instance_filter`; its `find_periodic_sequences` counts whole patterns in
/// the longest run of a period, as is done here).
///
/// A run of period `p` is where each id equals the one `p` before it; `n` equal ids in a row are `n + p` tokens.
#[must_use]
pub fn repeats(ids: &[u32]) -> bool {
    PERIODS.into_iter().any(|period| {
        let mut equal = 0;
        ids.iter().zip(ids.iter().skip(period)).any(|(before, id)| {
            equal = if before == id { equal + 1 } else { 0 };
            equal + period >= MAX_COUNT * period
        })
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// `before` ids that do not repeat, a pattern `count` times and `more` ids of it, then ids that do not repeat.
    fn sequence(before: u32, period: u32, count: u32, more: u32) -> Vec<u32> {
        let run = (0..period * count + more).map(|at| at % period);
        (1000..1000 + before).chain(run).chain(2000..2020).collect()
    }

    #[rstest]
    fn a_pattern_counts_from_32_times_on_wherever_it_stands(
        #[values(1, 2, 3, 7, 12, 13)] period: u32,
        #[values(0, 1, 5, 100)] before: u32,
    ) {
        assert!(repeats(&sequence(before, period, 32, 0)));
        assert!(!repeats(&sequence(before, period, 31, period - 1)));
        assert!(repeats(&sequence(before, period, 40, 0)));
    }

    #[test]
    fn longer_patterns_and_short_sequences_are_let_be() {
        assert!(!repeats(&sequence(3, 14, 100, 0)));
        assert!(!repeats(&[7; 31]));
        assert!(repeats(&[7; 32]));
        assert!(!repeats(&[]));
    }
}
