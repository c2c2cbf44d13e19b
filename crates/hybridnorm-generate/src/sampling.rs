//! Which token comes next: repetition penalty, temperature, top-k, top-p, min-p, in this order, as in transformers.

use hybridnorm_core::ConfigError;
use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;

/// Tokens that are sorted at first where only the most likely ones matter; eight times as many where these are too few.
const FIRST_SORTED: usize = 128;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 always takes the most likely token.
    pub temperature: f64,
    /// Only this many of the most likely tokens are kept.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability are kept.
    pub top_p: Option<f64>,
    /// Only tokens are kept that are at least this share as likely as the most likely one (arXiv 2407.01082).
    pub min_p: Option<f64>,
    /// Logits of tokens that the text holds already are divided by this where positive, multiplied where negative (arXiv 1909.05858, §4.1);
    /// 1 changes nothing.
    pub repetition_penalty: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: None,
            top_p: Some(0.95),
            min_p: None,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses what cannot be sampled with.
    ///
    /// # Errors
    /// Names the parameter, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            let allowed = "a finite number of at least 0";
            return Err(ConfigError::new("temperature", self.temperature, allowed));
        }
        if self.top_k == Some(0) {
            return Err(ConfigError::new("top_k", 0, "at least 1"));
        }
        if let Some(p) = self.top_p
            && !(p > 0.0 && p <= 1.0)
        {
            return Err(ConfigError::new("top_p", p, "above 0 and at most 1"));
        }
        if let Some(p) = self.min_p
            && !(0.0..=1.0).contains(&p)
        {
            return Err(ConfigError::new("min_p", p, "from 0 to 1"));
        }
        let penalty = self.repetition_penalty;
        if !(penalty.is_finite() && penalty > 0.0) {
            let allowed = "a finite number above 0; 1 changes nothing";
            return Err(ConfigError::new("repetition_penalty", penalty, allowed));
        }
        Ok(())
    }
}

/// Draws tokens as a [`Sampling`] says.
#[derive(Debug)]
pub struct Sampler {
    sampling: Sampling,
    rng: ChaCha8Rng,
}

impl Sampler {
    /// A sampler at the start of its seed's stream.
    ///
    /// # Errors
    /// As [`Sampling::validate`].
    pub fn new(sampling: Sampling) -> Result<Self, ConfigError> {
        Self::of_text(sampling, 0)
    }

    /// The sampler of text `index`: its draws are its own, whichever texts are written beside it.
    ///
    /// # Errors
    /// As [`Sampling::validate`].
    pub fn of_text(sampling: Sampling, index: usize) -> Result<Self, ConfigError> {
        sampling.validate()?;
        let mut rng = ChaCha8Rng::seed_from_u64(sampling.seed);
        rng.set_stream(index as u64);
        Ok(Self { sampling, rng })
    }

    /// The index of the logit that is drawn, after the tokens `held`; `None` where no logit is a finite number.
    pub fn pick(&mut self, logits: &mut [f32], held: &[u32]) -> Option<usize> {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            ..
        } = self.sampling;
        if repetition_penalty != 1.0 {
            penalize(logits, held, repetition_penalty as f32);
        }
        let best = argmax(logits);
        let highest = *logits.get(best)?;
        if !highest.is_finite() {
            return None;
        }
        if temperature == 0.0 {
            return Some(best);
        }
        let weight = |index: &usize| (f64::from(logits[*index] - highest) / temperature).exp();
        let total = |indices: &[usize]| indices.iter().map(weight).sum::<f64>();
        let mut left: Vec<usize> = (0..logits.len())
            .filter(|index| !logits[*index].is_nan())
            .collect();
        if let Some(k) = top_k {
            sort_first(logits, &mut left, k);
            left.truncate(k);
        }
        if let Some(p) = top_p {
            let enough = p * total(&left);
            let mut sorted = FIRST_SORTED;
            sort_first(logits, &mut left, sorted);
            while sorted < left.len() && total(&left[..sorted]) < enough {
                sorted *= 8;
                sort_first(logits, &mut left, sorted);
            }
            let mut sum = 0.0;
            let kept = left.iter().take_while(|index| {
                let open = sum < enough;
                sum += weight(index);
                open
            });
            let kept = kept.count();
            left.truncate(kept.max(1));
        }
        if let Some(p) = min_p {
            // The most likely token has weight 1.
            left.retain(|index| weight(index) >= p);
        }
        // 53 random bits: a number in 0..1, every one of them a double.
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut until = unit * total(&left);
        let drawn = left.into_iter().find(|index| {
            until -= weight(index);
            until < 0.0
        });
        Some(drawn.unwrap_or(best))
    }
}

/// Brings the `n` most likely of `indices` to the front, in falling order; of equals the lower index first.
fn sort_first(logits: &[f32], indices: &mut [usize], n: usize) {
    let order = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
    if n < indices.len() {
        indices.select_nth_unstable_by(n, order);
    }
    let n = n.min(indices.len());
    indices[..n].sort_unstable_by(order);
}

/// Makes each token of `held` less likely, once however often it stands there.
fn penalize(logits: &mut [f32], held: &[u32], penalty: f32) {
    let mut held: Vec<usize> = held.iter().map(|id| *id as usize).collect();
    held.sort_unstable();
    held.dedup();
    for id in held {
        if let Some(logit) = logits.get_mut(id) {
            *logit = match *logit > 0.0 {
                true => *logit / penalty,
                false => *logit * penalty,
            };
        }
    }
}

/// The index of the largest logit, the first of equals; 0 where all are NaN.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] || logits[best].is_nan() {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampling(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> Sampling {
        Sampling {
            temperature,
            top_k,
            top_p,
            seed: 1,
            ..Sampling::default()
        }
    }

    /// Probabilities 0.6, 0.1, 0.3.
    fn three() -> [f32; 3] {
        [0.6f32.ln(), 0.1f32.ln(), 0.3f32.ln()]
    }

    /// How often each of three logits is drawn in a thousand draws after `held`.
    fn counts_after(sampling: Sampling, held: &[u32]) -> [usize; 3] {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut counts = [0; 3];
        (0..1000).for_each(|_| counts[sampler.pick(&mut three(), held).unwrap()] += 1);
        counts
    }

    fn counts(sampling: Sampling) -> [usize; 3] {
        counts_after(sampling, &[])
    }

    #[test]
    fn draws_follow_the_distribution() {
        let [a, b, c] = counts(sampling(1.0, None, None));
        // Three standard deviations of a binomial are at most 47.
        assert!(a.abs_diff(600) < 47 && b.abs_diff(100) < 47 && c.abs_diff(300) < 47);
    }

    #[test]
    fn filters_cut_the_tail() {
        assert_eq!(counts(sampling(0.0, None, None)), [1000, 0, 0]);
        assert_eq!(counts(sampling(1.0, Some(1), None)), [1000, 0, 0]);
        assert_eq!(counts(sampling(1.0, Some(2), None))[1], 0);
        assert_eq!(counts(sampling(1.0, None, Some(0.5))), [1000, 0, 0]);
        let [a, b, c] = counts(sampling(1.0, None, Some(0.7)));
        assert!(a.abs_diff(667) < 47 && b == 0 && c > 0);
        let min_p = |p| Sampling {
            min_p: Some(p),
            ..sampling(1.0, None, None)
        };
        // 0.3 is half of 0.6.
        assert_eq!(counts(min_p(0.51)), [1000, 0, 0]);
        let [a, b, c] = counts(min_p(0.49));
        assert!(a.abs_diff(667) < 47 && b == 0 && c > 0);
    }

    /// Of a penalty of 2 the logit ln 0.6, which is negative, becomes twice itself: 0.36 beside 0.1 and 0.3.
    #[test]
    fn what_was_said_becomes_less_likely() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..sampling(1.0, None, None)
        };
        let [a, b, c] = counts_after(sampling, &[0, 0, 7]);
        assert!(a.abs_diff(474) < 47 && b.abs_diff(132) < 47 && c.abs_diff(395) < 47);
        let mut positive = [4.0, 1.0];
        penalize(&mut positive, &[0], 2.0);
        assert_eq!(positive, [2.0, 1.0]);
    }

    /// The most likely tokens of a large vocabulary are found without sorting it, whatever is asked for.
    #[test]
    fn a_large_vocabulary_is_sorted_as_far_as_needed() {
        let logits: Vec<f32> = (0..5000).map(|i| ((i * 7919) % 5000) as f32).collect();
        let mut sorted: Vec<usize> = (0..5000).collect();
        sorted.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        for n in [1, 5, 127, 4999, 5000, 9000] {
            let mut found: Vec<usize> = (0..5000).collect();
            sort_first(&logits, &mut found, n);
            assert_eq!(found[..n.min(5000)], sorted[..n.min(5000)]);
        }
        let sampling = Sampling {
            temperature: 1000.0,
            top_p: Some(0.9),
            ..sampling(1.0, None, None)
        };
        let mut sampler = Sampler::new(sampling).unwrap();
        let drawn: Vec<usize> = (0..2000)
            .map(|_| sampler.pick(&mut logits.clone(), &[]).unwrap())
            .collect();
        let least = drawn
            .iter()
            .map(|index| logits[*index])
            .fold(f32::MAX, f32::min);
        // Σ e^(-i/1000) over the first n of 5000 is 0.9 of all where n = -1000·ln(1 - 0.9·(1 - e^-5)) = 2243.7: down to 4999 - 2243.
        assert!((2756.0..2800.0).contains(&least), "{least}");
    }

    #[test]
    fn logits_that_are_no_numbers_are_never_drawn() {
        let mut sampler = Sampler::new(sampling(1.0, None, Some(0.9))).unwrap();
        assert_eq!(sampler.pick(&mut [f32::NAN, 1.0, f32::NAN], &[]), Some(1));
        for mut none in [
            [f32::NAN, f32::NAN],
            [f32::NEG_INFINITY; 2],
            [f32::INFINITY, 0.0],
        ] {
            assert_eq!(sampler.pick(&mut none, &[]), None);
        }
        assert_eq!(sampler.pick(&mut [], &[]), None);
    }

    #[test]
    fn a_parameter_out_of_range_is_named() {
        let refused = |change: fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            sampling.validate().unwrap_err().field
        };
        assert_eq!(refused(|s| s.temperature = -1.0), "temperature");
        assert_eq!(refused(|s| s.temperature = f64::NAN), "temperature");
        assert_eq!(refused(|s| s.top_k = Some(0)), "top_k");
        assert_eq!(refused(|s| s.top_p = Some(0.0)), "top_p");
        assert_eq!(refused(|s| s.top_p = Some(f64::NAN)), "top_p");
        assert_eq!(refused(|s| s.min_p = Some(1.5)), "min_p");
        assert_eq!(refused(|s| s.min_p = Some(f64::NAN)), "min_p");
        let penalty = "repetition_penalty";
        assert_eq!(refused(|s| s.repetition_penalty = 0.0), penalty);
        assert_eq!(refused(|s| s.repetition_penalty = f64::NAN), penalty);
    }
}
