//! What the differences of a few pairs of runs allow to be said.
//!
//! `d_s` is the validation loss of an arm less that of its baseline, both run with seed `s` on the same batches. Of their mean two 95 %
//! intervals are given:
//!
//! - the percentile bootstrap ([`RESAMPLES`] resamples of the pairs, drawn with a fixed seed, so that the same figures give the same
//!   interval). With three pairs it is the range of the three, and misses 0 by chance once in four times;
//! - Student's, `mean ± t·sd/√n` with `n − 1` degrees of freedom, which is wide where pairs are few, and right where differences are
//!   normally distributed.
//!
//! A difference counts as shown where **both** leave 0 out. With fewer than [`LEAST`] pairs nothing is concluded: one pair has no spread, and
//! of two, Student's interval is six times as wide as they lie apart.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::bench::quantile;

/// Fewest pairs that anything is concluded from.
pub const LEAST: usize = 3;
/// Times that the pairs are drawn anew.
pub const RESAMPLES: usize = 10_000;
/// Seed of those draws.
pub const BOOTSTRAP_SEED: u64 = 6198;
/// The share of intervals that hold the true mean.
pub const CONFIDENCE: f64 = 0.95;

/// What is known of a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Pairs.
    pub pairs: usize,
    /// Their mean difference; below 0 the arm is better.
    pub mean: f64,
    /// Standard deviation of the differences; absent of a single one.
    pub deviation: Option<f64>,
    /// The percentile bootstrap's interval of the mean; absent for fewer than two pairs.
    pub bootstrap: Option<[f64; 2]>,
    /// Student's.
    pub student: Option<[f64; 2]>,
}

/// What is concluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// What the others are held against.
    Baseline,
    /// A lower validation loss than the baseline's was shown.
    Better,
    /// Neither was shown. This does not say that they are equal.
    NoDifferenceShown,
    /// A higher one was shown.
    Worse,
    /// At least one of its runs diverged.
    Diverged,
    /// Too few pairs to conclude anything.
    TooFewSeeds,
    /// The baseline has no run that came to its end.
    NoBaseline,
    /// Runs are missing.
    Unfinished,
}

impl Verdict {
    /// As it is shown.
    pub fn words(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Better => "better",
            Self::NoDifferenceShown => "no difference shown",
            Self::Worse => "worse",
            Self::Diverged => "diverged",
            Self::TooFewSeeds => "not concluded: fewer than 3 seeds",
            Self::NoBaseline => "the baseline diverged",
            Self::Unfinished => "unfinished",
        }
    }
}

impl Paired {
    /// Of the differences of at least one pair.
    pub fn of(differences: &[f64]) -> Option<Self> {
        let pairs = differences.len();
        let mean = differences.iter().sum::<f64>() / pairs as f64;
        if pairs == 0 {
            return None;
        }
        let several = pairs > 1;
        let squares: f64 = differences.iter().map(|d| (d - mean).powi(2)).sum();
        let deviation = several.then(|| (squares / (pairs - 1) as f64).sqrt());
        Some(Self {
            pairs,
            mean,
            deviation,
            bootstrap: several.then(|| bootstrap(differences)),
            student: deviation.map(|deviation| {
                let half = student_t(pairs - 1) * deviation / (pairs as f64).sqrt();
                [mean - half, mean + half]
            }),
        })
    }

    /// What follows from it.
    pub fn verdict(&self) -> Verdict {
        let (Some(a), Some(b), true) = (self.bootstrap, self.student, self.pairs >= LEAST) else {
            return Verdict::TooFewSeeds;
        };
        match (a[1].max(b[1]) < 0.0, a[0].min(b[0]) > 0.0) {
            (true, _) => Verdict::Better,
            (_, true) => Verdict::Worse,
            _ => Verdict::NoDifferenceShown,
        }
    }
}

/// The interval between the quantiles of the means of resampled differences.
fn bootstrap(differences: &[f64]) -> [f64; 2] {
    let mut draws = ChaCha8Rng::seed_from_u64(BOOTSTRAP_SEED);
    let n = differences.len();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn = (0..n).map(|_| differences[draws.random_range(0..n)]);
            drawn.sum::<f64>() / n as f64
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    [tail, 1.0 - tail].map(|at| quantile(&means, at).unwrap_or(f64::NAN))
}

/// The 97.5 % quantile of Student's distribution; between tabled degrees of freedom, that of the next lower one, which is larger.
fn student_t(degrees: usize) -> f64 {
    // NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2.
    const FEW: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    const MANY: [(usize, f64); 3] = [(100, 1.984), (60, 2.000), (40, 2.021)];
    match degrees {
        0 => f64::INFINITY,
        1..=30 => FEW[degrees - 1],
        _ => {
            let found = MANY.iter().find(|(least, _)| degrees >= *least);
            found.map_or(FEW[29], |(_, t)| *t)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside `scipy.stats.t.interval(0.95, n - 1, mean, sd / sqrt(n))`.
    #[test]
    fn students_interval_is_the_known_one() {
        let paired = Paired::of(&[-0.03, -0.01, -0.02]).unwrap();
        assert!((paired.mean + 0.02).abs() < 1e-12);
        assert!((paired.deviation.unwrap() - 0.01).abs() < 1e-12);
        let [low, high] = paired.student.unwrap();
        assert!((low + 0.044841).abs() < 1e-5, "{low}");
        assert!((high - 0.004841).abs() < 1e-5, "{high}");
        // The bootstrap's is the range, and alone would call it shown.
        let [low, high] = paired.bootstrap.unwrap();
        assert!((low + 0.03).abs() < 1e-12 && (high + 0.01).abs() < 1e-12);
        assert_eq!(paired.verdict(), Verdict::NoDifferenceShown);
    }

    #[test]
    fn consistent_differences_are_shown() {
        let shifted = |by: f64| [0.021, 0.019, 0.020].map(|d| d * by);
        let verdict = |by| Paired::of(&shifted(by)).unwrap().verdict();
        assert_eq!(verdict(1.0), Verdict::Worse);
        assert_eq!(verdict(-1.0), Verdict::Better);
    }

    #[test]
    fn too_few_pairs_conclude_nothing() {
        assert_eq!(Paired::of(&[]), None);
        for differences in [&[-1.0][..], &[-1.0, -1.0]] {
            let paired = Paired::of(differences).unwrap();
            assert_eq!(paired.verdict(), Verdict::TooFewSeeds);
        }
        assert_eq!(Paired::of(&[-1.0]).unwrap().bootstrap, None);
    }

    /// Of ten pairs: beside the normal approximation that the bootstrap's interval has to be near to, and always the same.
    #[test]
    fn the_bootstrap_repeats_and_is_about_right() {
        let differences: Vec<f64> = (0..10).map(f64::from).collect();
        let paired = Paired::of(&differences).unwrap();
        assert_eq!(paired, Paired::of(&differences).unwrap());
        // The standard error of the resampled mean: √(Σ(d − 4.5)²/10)/√10.
        let error = (82.5f64 / 10.0).sqrt() / 10f64.sqrt();
        let [low, high] = paired.bootstrap.unwrap();
        assert!((low - (4.5 - 1.96 * error)).abs() < 0.15, "{low}");
        assert!((high - (4.5 + 1.96 * error)).abs() < 0.15, "{high}");
    }

    #[test]
    fn quantiles_never_grow_with_the_degrees() {
        let all: Vec<f64> = (1..200).map(student_t).collect();
        assert!(all.windows(2).all(|pair| pair[0] >= pair[1]));
    }
}
