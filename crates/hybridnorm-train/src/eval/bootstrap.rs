//! How far a figure would scatter had other questions or documents been drawn (Efron 1979, doi:10.1214/aos/1176344552).

use rand::SeedableRng;
use rand::rand_core::Rng;
use rand_chacha::ChaCha8Rng;

/// Times that a sample is drawn again.
const DRAWS: usize = 1000;
/// Their seed: the same sample has the same standard error.
const SEED: u64 = 0;

/// The standard error of `figure` of a sample of `n`: its standard deviation over samples of as many, drawn from it with replacement.
/// `figure` is given the indices of each. `None` of fewer than two.
pub fn standard_error(n: usize, figure: impl Fn(&[usize]) -> f64) -> Option<f64> {
    if n < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut drawn = vec![0; n];
    let figures: Vec<f64> = (0..DRAWS)
        .map(|_| {
            // Scaled without a remainder: of 2⁶⁴ numbers none is favoured by more than n.
            let draw = |rng: &mut ChaCha8Rng| (u128::from(rng.next_u64()) * n as u128) >> 64;
            drawn.fill_with(|| draw(&mut rng) as usize);
            figure(&drawn)
        })
        .collect();
    let mean = figures.iter().sum::<f64>() / DRAWS as f64;
    let squares: f64 = figures.iter().map(|value| (value - mean).powi(2)).sum();
    Some((squares / (DRAWS - 1) as f64).sqrt())
}

/// The standard error of a mean.
pub fn of_mean(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    standard_error(values.len(), |drawn| {
        drawn.iter().map(|index| values[*index]).sum::<f64>() / n
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a mean it is the population's standard deviation over √n; a thousand draws tell it to within 1/√2000, here three times that.
    #[test]
    fn the_error_of_a_mean_is_known() {
        let answers: Vec<f64> = (0..400).map(|i| f64::from(i % 4 == 0)).collect();
        let expected = (0.25f64 * 0.75 / 400.0).sqrt();
        let found = of_mean(&answers).unwrap();
        assert!((found / expected - 1.0).abs() < 0.07, "{found} {expected}");
        assert_eq!(of_mean(&answers), Some(found));
    }

    #[test]
    fn one_answer_has_no_error() {
        assert_eq!(of_mean(&[1.0]), None);
        assert_eq!(of_mean(&[]), None);
        assert_eq!(of_mean(&[0.5, 0.5]), Some(0.0));
    }
}
