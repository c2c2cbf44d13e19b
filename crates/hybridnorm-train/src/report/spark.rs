//! A curve in a line of the terminal.

const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `values` as at most `width` bars between the lowest and the highest of them; each bar is the mean of its part, and a space where that
/// holds no finite value.
pub fn sparkline(values: &[f64], width: usize) -> String {
    let parts = values.len().min(width);
    let means: Vec<Option<f64>> = (0..parts)
        .map(|part| {
            let (from, to) = (
                part * values.len() / parts,
                (part + 1) * values.len() / parts,
            );
            let finite: Vec<f64> = values[from..to]
                .iter()
                .copied()
                .filter(|v| v.is_finite())
                .collect();
            (!finite.is_empty()).then(|| finite.iter().sum::<f64>() / finite.len() as f64)
        })
        .collect();
    let known = || means.iter().flatten().copied();
    let (low, high) = (
        known().fold(f64::INFINITY, f64::min),
        known().fold(f64::NEG_INFINITY, f64::max),
    );
    let bar = |mean: &Option<f64>| match mean {
        None => ' ',
        Some(_) if high <= low => BARS[0],
        Some(mean) => {
            let place = (mean - low) / (high - low) * BARS.len() as f64;
            BARS[(place as usize).min(BARS.len() - 1)]
        }
    };
    means.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_go_from_the_lowest_to_the_highest() {
        let values: Vec<f64> = (0..8).map(f64::from).collect();
        assert_eq!(sparkline(&values, 8), "▁▂▃▄▅▆▇█");
        assert_eq!(sparkline(&[2.0, 2.0, 1.0, 1.0], 2), "█▁");
        assert_eq!(sparkline(&[3.0; 5], 8), "▁▁▁▁▁");
        assert_eq!(sparkline(&[f64::NAN, 1.0, f64::INFINITY, 2.0], 4), " ▁ █");
        assert_eq!(sparkline(&[], 8), "");
        assert_eq!(sparkline(&[1.0], 0), "");
    }
}
