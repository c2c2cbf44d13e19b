//! Which token copies each expert gets, and in what order: a counting sort on the host.
//!
//! The chosen experts are read back from the device, `4·tokens·top_k` bytes for each sparse layer and forward pass, and the order goes
//! up again. That is the one point where a GPU waits for its host; the backward pass has none (docs/moe.md gives the measured cost).

use burn::tensor::Device;
use hybridnorm_kernels::{Groups, Routes};

/// The order in which token copies are sorted by expert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The copy at each place: copy `c` is choice `c % top_k` of token `c / top_k`. Dropped copies come last.
    pub order: Vec<u32>,
    /// Copies that each expert computes.
    pub sizes: Vec<usize>,
    /// Copies that chose each expert, whether it computes them or not.
    pub load: Vec<usize>,
}

impl Assignment {
    /// Sorts copies by expert; those of one expert stay in the order of their tokens.
    ///
    /// With a `capacity`, an expert computes no more copies than that: every token's first choice goes before any token's second
    /// one (GShard, arXiv 2006.16668), and earlier tokens before later ones. Without, nothing is dropped.
    ///
    /// # Panics
    /// When a chosen expert is not below `n_experts`, or `top_k` does not divide the number of copies.
    pub fn new(chosen: &[u32], top_k: usize, n_experts: usize, capacity: Option<usize>) -> Self {
        assert!(
            top_k > 0 && chosen.len().is_multiple_of(top_k),
            "{} choices of {top_k} each",
            chosen.len()
        );
        let mut load = vec![0; n_experts];
        for expert in chosen {
            load[*expert as usize] += 1;
        }
        let kept = capacity.map(|capacity| keep(chosen, top_k, n_experts, capacity));
        let is_kept = |copy: usize| kept.as_ref().is_none_or(|kept| kept[copy]);
        let mut sizes = vec![0; n_experts];
        for (copy, expert) in chosen.iter().enumerate() {
            sizes[*expert as usize] += usize::from(is_kept(copy));
        }
        let mut next = Vec::with_capacity(n_experts);
        let mut start = 0;
        for size in &sizes {
            next.push(start);
            start += size;
        }
        let mut dropped = start;
        let mut order = vec![0u32; chosen.len()];
        for (copy, expert) in chosen.iter().enumerate() {
            let place = match is_kept(copy) {
                true => &mut next[*expert as usize],
                false => &mut dropped,
            };
            order[*place] = copy as u32;
            *place += 1;
        }
        Self { order, sizes, load }
    }

    /// Copies that no expert computes.
    pub fn dropped(&self) -> usize {
        self.order.len() - self.sizes.iter().sum::<usize>()
    }

    /// As the operations of `hybridnorm-kernels` take it.
    pub fn upload(&self, top_k: usize, device: &Device) -> (Groups, Routes) {
        (
            Groups::new(self.sizes.clone()),
            Routes::new(&self.order, top_k, device),
        )
    }
}

/// Which copies are computed when no expert takes more than `capacity`.
fn keep(chosen: &[u32], top_k: usize, n_experts: usize, capacity: usize) -> Vec<bool> {
    let mut taken = vec![0; n_experts];
    let mut kept = vec![false; chosen.len()];
    for choice in 0..top_k {
        for copy in (choice..chosen.len()).step_by(top_k) {
            let taken = &mut taken[chosen[copy] as usize];
            kept[copy] = *taken < capacity;
            *taken += usize::from(kept[copy]);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_sorted_by_expert_and_then_by_token() {
        let sorted = Assignment::new(&[2, 0, 0, 2, 2, 1], 2, 4, None);
        assert_eq!(sorted.order, [1, 2, 5, 0, 3, 4]);
        assert_eq!(sorted.sizes, [2, 1, 3, 0]);
        assert_eq!((sorted.load.clone(), sorted.dropped()), (sorted.sizes, 0));
    }

    #[test]
    fn above_capacity_second_choices_and_later_tokens_are_dropped_first() {
        // Tokens 0 and 1 choose (1, 0), token 2 chooses (0, 1): expert 0 gets its first choice, token 2's, and one more.
        let sorted = Assignment::new(&[1, 0, 1, 0, 0, 1], 2, 2, Some(2));
        assert_eq!(sorted.order, [1, 4, 0, 2, 3, 5]);
        assert_eq!(
            (sorted.sizes.as_slice(), sorted.dropped()),
            ([2, 2].as_slice(), 2)
        );
        assert_eq!(sorted.load, [3, 3]);
    }
}
