//! Where an axis is marked, and with what.

/// About so many round numbers between `low` and `high`.
pub(super) fn linear(low: f64, high: f64, about: usize) -> Vec<f64> {
    let size = high - low;
    if !(size > 0.0 && size.is_finite()) {
        return Vec::new();
    }
    let rough = size / about.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let nice = [1.0, 2.0, 5.0, 10.0];
    let step = power
        * nice
            .into_iter()
            .find(|step| step * power >= rough)
            .unwrap_or(10.0);
    let (from, to) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (from..=to).take(100).map(|n| n as f64 * step).collect()
}

/// Powers of ten between 10^`low` and 10^`high`, given as their exponents; where they are few, twice and five times them too, or, in a
/// range that is narrower still, evenly spaced numbers.
pub(super) fn logarithmic(low: f64, high: f64, about: usize) -> Vec<f64> {
    let (from, to) = (low.floor() as i64, high.ceil() as i64);
    let inside = |place: &f64| (low..=high).contains(place);
    let decades = (high - low).max(1.0);
    let every = (decades / about.max(1) as f64).ceil().max(1.0) as usize;
    let powers = (from..=to).step_by(every).map(|n| n as f64).filter(inside);
    let powers: Vec<f64> = powers.collect();
    if powers.len() >= 3 {
        return powers;
    }
    let between = |n: i64| [1.0f64, 2.0, 5.0].map(|factor| n as f64 + factor.log10());
    let finer: Vec<f64> = (from..=to).flat_map(between).filter(inside).collect();
    match finer.len() {
        0..3 => {
            let even = linear(10f64.powf(low), 10f64.powf(high), about);
            even.into_iter().map(f64::log10).filter(inside).collect()
        }
        _ => finer,
    }
}

/// `0.001`, `12.5`, `3.2e−5`, `40k`: what fits an axis.
pub(super) fn text(value: f64) -> String {
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    };
    let plain = match value.abs() {
        size if size < 1e-12 => "0".to_string(),
        size if size < 1e-3 => format!("{value:.1e}").replace(".0e", "e"),
        size if size < 1.0 => trimmed(format!("{value:.4}")),
        size if size < 100.0 => trimmed(format!("{value:.2}")),
        size if size < 1e4 => trimmed(format!("{value:.1}")),
        size if size < 1e6 => format!("{}k", trimmed(format!("{:.1}", value / 1e3))),
        size if size < 1e9 => format!("{}M", trimmed(format!("{:.1}", value / 1e6))),
        _ => format!("{value:.1e}").replace(".0e", "e"),
    };
    plain.replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(linear(0.0, 10.0, 5), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(linear(0.9, 5.1, 6), [1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(logarithmic(-3.0, 0.0, 5), [-3.0, -2.0, -1.0, 0.0]);
        let numbers = |marks: Vec<f64>| marks.into_iter().map(|mark| text(10f64.powf(mark)));
        let near: Vec<String> = numbers(logarithmic(-0.1, 1.1, 5)).collect();
        assert_eq!(near, ["1", "2", "5", "10"]);
        assert!(logarithmic(0.30, 0.35, 5).len() >= 3);
        assert!(linear(f64::NAN, 1.0, 5).is_empty() && linear(1.0, 1.0, 5).is_empty());
    }

    #[test]
    fn marks_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (0.003, "0.003"),
            (-1.5, "−1.5"),
            (0.0001, "1e−4"),
            (12.0, "12"),
            (100.0, "100"),
            (2000.0, "2000"),
            (20_000.0, "20k"),
            (1_500_000.0, "1.5M"),
        ] {
            assert_eq!(text(value), expected);
        }
    }
}
