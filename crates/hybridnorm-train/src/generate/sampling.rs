//! Which token comes next: temperature, top-k, top-p.

use hybridnorm_core::ConfigError;
use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by this; 0 always takes the most likely token.
    pub temperature: f64,
    /// Only this many of the most likely tokens are kept.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together reach this probability are kept.
    pub top_p: Option<f64>,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: None,
            top_p: Some(0.95),
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
        match self.top_p {
            Some(p) if !(p > 0.0 && p <= 1.0) => {
                Err(ConfigError::new("top_p", p, "above 0 and at most 1"))
            }
            _ => Ok(()),
        }
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
        sampling.validate()?;
        Ok(Self {
            sampling,
            rng: ChaCha8Rng::seed_from_u64(sampling.seed),
        })
    }

    /// The index of the logit that is drawn.
    pub fn pick(&mut self, logits: &[f32]) -> usize {
        let Sampling {
            temperature,
            top_k,
            top_p,
            ..
        } = self.sampling;
        if temperature == 0.0 {
            return argmax(logits);
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(top_k.unwrap_or(usize::MAX));
        let Some(&best) = order.first() else {
            return 0;
        };
        let weight = |index: usize| (f64::from(logits[index] - logits[best]) / temperature).exp();
        let mut weights: Vec<f64> = order.iter().map(|&index| weight(index)).collect();
        if let Some(p) = top_p {
            let enough = p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().take_while(|weight| {
                let open = sum < enough;
                sum += **weight;
                open
            });
            let kept = kept.count();
            weights.truncate(kept.max(1));
        }
        // 53 random bits: a number in 0..1, every one of them a double.
        let unit = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut left = unit * weights.iter().sum::<f64>();
        for (&index, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        best
    }
}

/// The index of the largest logit, the first of equals.
pub(super) fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f64, top_k: Option<usize>, top_p: Option<f64>) -> Sampler {
        let seed = 1;
        Sampler::new(Sampling {
            temperature,
            top_k,
            top_p,
            seed,
        })
        .unwrap()
    }

    /// How often each of three logits is drawn in a thousand draws.
    fn counts(mut sampler: Sampler) -> [usize; 3] {
        // Probabilities 0.6, 0.1, 0.3.
        let logits = [0.6f32.ln(), 0.1f32.ln(), 0.3f32.ln()];
        let mut counts = [0; 3];
        (0..1000).for_each(|_| counts[sampler.pick(&logits)] += 1);
        counts
    }

    #[test]
    fn draws_follow_the_distribution() {
        let [a, b, c] = counts(sampler(1.0, None, None));
        // Three standard deviations of a binomial are at most 47.
        assert!(a.abs_diff(600) < 47 && b.abs_diff(100) < 47 && c.abs_diff(300) < 47);
    }

    #[test]
    fn filters_cut_the_tail() {
        assert_eq!(counts(sampler(0.0, None, None)), [1000, 0, 0]);
        assert_eq!(counts(sampler(1.0, Some(1), None)), [1000, 0, 0]);
        assert_eq!(counts(sampler(1.0, Some(2), None))[1], 0);
        assert_eq!(counts(sampler(1.0, None, Some(0.5))), [1000, 0, 0]);
        let [a, b, c] = counts(sampler(1.0, None, Some(0.7)));
        assert!(a.abs_diff(667) < 47 && b == 0 && c > 0);
    }

    #[test]
    fn a_parameter_out_of_range_is_named() {
        for (temperature, top_k, top_p, name) in [
            (-1.0, None, None, "temperature"),
            (f64::NAN, None, None, "temperature"),
            (1.0, Some(0), None, "top_k"),
            (1.0, None, Some(0.0), "top_p"),
            (1.0, None, Some(1.5), "top_p"),
        ] {
            let seed = 0;
            let sampling = Sampling {
                temperature,
                top_k,
                top_p,
                seed,
            };
            assert_eq!(sampling.validate().unwrap_err().field, name);
        }
    }
}
