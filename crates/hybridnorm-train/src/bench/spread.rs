//! Where the middle of repeated measurements lies, and how far they scatter.

/// Order statistics of a set of measurements, in the unit they were taken in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// A tenth of them are at or below it.
    pub p10: f64,
    /// Half of them are at or below it.
    pub median: f64,
    /// Nine tenths of them are at or below it.
    pub p90: f64,
}

impl Spread {
    /// The spread of `measurements`; `None` if there are none.
    pub fn of(measurements: &[f64]) -> Option<Self> {
        let mut sorted = measurements.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            min: *sorted.first()?,
            p10: quantile(&sorted, 0.1)?,
            median: quantile(&sorted, 0.5)?,
            p90: quantile(&sorted, 0.9)?,
        })
    }
}

/// The value below which a share `at` of `sorted` lies, on the straight line between its two neighbours: type 7 of
/// Hyndman and Fan (1996), the default of NumPy and R. At 0.5 it is Python's `statistics.median`.
pub(crate) fn quantile(sorted: &[f64], at: f64) -> Option<f64> {
    let place = at * sorted.len().checked_sub(1)? as f64;
    let below = *sorted.get(place.floor() as usize)?;
    let above = *sorted.get(place.ceil() as usize)?;
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside `numpy.quantile` of the same numbers.
    #[test]
    fn known_numbers_have_known_quantiles() {
        let spread = Spread::of(&[5.0, 1.0, 4.0, 2.0, 3.0, 10.0]).unwrap();
        assert_eq!(spread.min, 1.0);
        assert!((spread.p10 - 1.5).abs() < 1e-12, "{spread:?}");
        assert!((spread.median - 3.5).abs() < 1e-12, "{spread:?}");
        assert!((spread.p90 - 7.5).abs() < 1e-12, "{spread:?}");

        let eleven: Vec<f64> = (0..=10).rev().map(f64::from).collect();
        let spread = Spread::of(&eleven).unwrap();
        assert_eq!((spread.p10, spread.median, spread.p90), (1.0, 5.0, 9.0));
    }

    #[test]
    fn one_measurement_has_no_spread() {
        let spread = Spread::of(&[7.0]).unwrap();
        assert_eq!(
            [spread.min, spread.p10, spread.median, spread.p90],
            [7.0; 4]
        );
        assert_eq!(Spread::of(&[]), None);
    }
}
