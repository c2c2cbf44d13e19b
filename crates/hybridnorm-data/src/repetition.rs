//! The authors' filter against sequences that repeat themselves.

/// Lengths of the pattern that is looked for, in tokens.
const PERIODS: std::ops::RangeInclusive<usize> = 1..=13;
/// How often in a row a pattern must stand for its sequence to count for nothing.
const MAX_COUNT: usize = 32;

/// Whether a pattern of 1 to 13 tokens stands 32 times or more in a row anywhere in `ids`. The labels of such a
/// sequence are masked, all of them (OLMo's `instance_filter`; its `find_periodic_sequences` counts whole patterns in
/// the longest run of a period, as is done here).
///
/// A run of period `p` is where each id equals the one `p` before it, and 32 patterns are `31 p` such places in a row. So
/// only every `31 p`-th place is looked at, and what lies around it where it is one.
#[must_use]
pub fn repeats(ids: &[u32]) -> bool {
    PERIODS.into_iter().any(|period| {
        let needed = (MAX_COUNT - 1) * period;
        let equal = |place: usize| ids[place] == ids[place - period];
        let looked_at = (period + needed - 1..ids.len()).step_by(needed);
        looked_at.filter(|&place| equal(place)).any(|place| {
            let before = (period..place).rev().take_while(|&place| equal(place));
            let after = (place..ids.len()).take_while(|&place| equal(place));
            before.chain(after).take(needed).count() == needed
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

    /// The definition, looking at every place.
    fn by_definition(ids: &[u32]) -> bool {
        PERIODS.into_iter().any(|period| {
            let mut equal = 0;
            ids.iter().zip(ids.iter().skip(period)).any(|(before, id)| {
                equal = if before == id { equal + 1 } else { 0 };
                equal >= (MAX_COUNT - 1) * period
            })
        })
    }

    #[test]
    fn looking_at_few_places_misses_nothing() {
        let mut found = [0; 2];
        for seed in 0..3000u64 {
            let random = |salt: u64, below: u64| {
                (super::super::permutation::mix(seed ^ salt << 32) % below) as u32
            };
            let period = 1 + random(1, 14);
            let ids = sequence(
                random(2, 40),
                period,
                29 + random(3, 5),
                random(4, period.into()),
            );
            assert_eq!(repeats(&ids), by_definition(&ids), "seed {seed}");
            found[usize::from(repeats(&ids))] += 1;
        }
        assert!(found.iter().all(|&count| count > 500), "{found:?}");
    }

    #[test]
    fn longer_patterns_and_short_sequences_are_let_be() {
        assert!(!repeats(&sequence(3, 14, 100, 0)));
        assert!(!repeats(&[7; 31]));
        assert!(repeats(&[7; 32]));
        assert!(!repeats(&[]));
    }
}
