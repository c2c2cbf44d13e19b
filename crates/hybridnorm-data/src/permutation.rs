//! A pseudo-random permutation of 0..n that holds no table.

/// Rounds of the Feistel network: enough that small domains, too, look shuffled.
const ROUNDS: usize = 8;

/// A bijection of `0..len`, chosen by a key, computed one index at a time in constant memory.
///
/// A balanced Feistel network permutes the `2^(2h)` numbers of `2h` bits, the smallest such power that is at
/// least `len`; an image outside `0..len` is fed back until it falls inside ("cycle walking", Black and
/// Rogaway 2002), which keeps the map a bijection and takes fewer than four passes on average. It shuffles
/// data; it is no cipher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    len: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that `(seed, epoch)` names.
    #[must_use]
    pub fn new(len: u64, seed: u64, epoch: u64) -> Self {
        let bits = u64::BITS - len.saturating_sub(1).leading_zeros();
        let half_bits = bits.div_ceil(2).max(1);
        let mut state = mix(seed ^ mix(epoch));
        let keys = std::array::from_fn(|_| {
            state = mix(state);
            state
        });
        Self {
            len,
            half_bits,
            keys,
        }
    }

    /// Size of the domain.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the domain is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The image of `index`.
    ///
    /// # Panics
    ///
    /// When `index` is not below [`Permutation::len`], which is a mistake of the caller.
    #[must_use]
    pub fn apply(&self, index: u64) -> u64 {
        assert!(
            index < self.len,
            "index {index} is outside a permutation of 0..{}",
            self.len
        );
        let mut image = self.network(index);
        while image >= self.len {
            image = self.network(image);
        }
        image
    }

    fn network(&self, value: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        left << self.half_bits | right
    }
}

/// One step of SplitMix64 (Steele, Lea and Flood 2014): a bijection of 64 bits that mixes them well.
pub(super) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // The first two outputs of the reference implementation from state 0 (Vigna, splitmix64.c).
        assert_eq!(mix(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(mix(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[rstest]
    fn it_is_a_bijection(
        #[values(1, 2, 3, 4, 5, 7, 16, 17, 63, 64, 65, 255, 256, 257, 1000, 4097)] len: u64,
        #[values(0, 1, u64::MAX)] seed: u64,
    ) {
        let permutation = Permutation::new(len, seed, 3);
        let mut seen: Vec<u64> = (0..len).map(|index| permutation.apply(index)).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..len).collect::<Vec<_>>());
    }

    #[test]
    fn a_domain_of_the_largest_size_stays_inside() {
        let permutation = Permutation::new(u64::MAX, 1, 0);
        assert_ne!(permutation.apply(0), permutation.apply(u64::MAX - 1));
        // Applying the same network twice to neighbours must not meet either.
        assert_ne!(permutation.apply(1), permutation.apply(2));
    }

    #[test]
    fn seeds_and_epochs_give_other_orders() {
        let order = |seed, epoch| {
            let permutation = Permutation::new(1000, seed, epoch);
            (0..1000)
                .map(|index| permutation.apply(index))
                .collect::<Vec<_>>()
        };
        assert_eq!(order(1, 0), order(1, 0));
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 0), order(1, 1));
        // (seed, epoch) must not collapse to their sum or difference.
        assert_ne!(order(1, 2), order(2, 1));
    }

    #[test]
    fn all_orders_of_three_are_about_equally_likely() {
        // 6 orders, 6000 seeds: each count is binomial with mean 1000 and deviation 28.9; allow six of them.
        let mut counts = std::collections::BTreeMap::new();
        for seed in 0..6000 {
            let permutation = Permutation::new(3, seed, 0);
            let order = [0, 1, 2].map(|index| permutation.apply(index));
            *counts.entry(order).or_insert(0i32) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(
            counts.values().all(|count| (count - 1000).abs() < 174),
            "{counts:?}"
        );
    }
}
