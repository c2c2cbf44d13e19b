//! One comparison against a reference value, and the tolerances it is held to.

use hybridnorm_interop::Array;
use serde::Serialize;

/// How many times the reference's own single-precision error a value may be off.
///
/// The reference lists, for every tensor, the largest difference between its f32 and its f64 run. A correct f32
/// implementation that adds in another order is off by about as much again; the factor leaves room for the spread of
/// a maximum over few samples, and no more.
pub const FACTOR: f64 = 8.0;

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was compared.
    pub what: String,
    /// Largest absolute difference; `null` in JSON when it is not finite.
    pub error: f64,
    /// What it may be.
    pub tolerance: f64,
    /// Where the largest difference is.
    pub at: String,
    /// Whether the difference is within the tolerance.
    pub passed: bool,
}

impl Check {
    /// A comparison that came out as `error`, at `at`, where `tolerance` is allowed.
    pub fn new(what: impl Into<String>, error: f64, tolerance: f64, at: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            error,
            tolerance,
            at: at.into(),
            passed: error <= tolerance, // false for NaN
        }
    }

    /// A comparison of things that are equal or not.
    pub fn exact(what: impl Into<String>, equal: bool, at: impl Into<String>) -> Self {
        Self::new(what, if equal { 0.0 } else { 1.0 }, 0.0, at)
    }

    /// Compares numbers with what is expected.
    ///
    /// `own_error` is the reference's own f32 error. It is taken as at least one f32 rounding of the largest value:
    /// no f32 result can be asked for more.
    pub fn close(what: impl Into<String>, found: &[f64], expected: &Array, own_error: f64) -> Self {
        let what = what.into();
        if found.len() != expected.values.len() {
            let at = format!(
                "{} values instead of {}",
                found.len(),
                expected.values.len()
            );
            return Self::exact(what, false, at);
        }
        let largest = expected.values.iter().fold(0f64, |m, x| m.max(x.abs()));
        let mut worst = (0f64, 0usize);
        for (i, (a, b)) in found.iter().zip(&expected.values).enumerate() {
            let error = (a - b).abs();
            if error > worst.0 || error.is_nan() {
                worst = (error, i);
                if error.is_nan() {
                    break;
                }
            }
        }
        let tolerance = FACTOR * own_error.max(largest * f64::from(f32::EPSILON) / 2.0);
        let (error, index) = worst;
        let at = if error == 0.0 {
            String::new()
        } else {
            place(index, &expected.shape)
        };
        Self::new(what, error, tolerance, at)
    }

    /// The error as a share of what is allowed; infinite when nothing is.
    pub fn share(&self) -> f64 {
        if self.error == 0.0 {
            0.0
        } else {
            self.error / self.tolerance
        }
    }
}

/// The largest absolute difference of two equally long lists.
pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

/// `[1, 4, 7]` for a flat index.
fn place(mut index: usize, shape: &[usize]) -> String {
    let mut indices: Vec<usize> = shape
        .iter()
        .rev()
        .map(|size| {
            let i = index % size.max(&1);
            index /= size.max(&1);
            i
        })
        .collect();
    indices.reverse();
    format!("{indices:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(values: &[f64]) -> Array {
        Array {
            shape: vec![2, 2],
            values: values.to_vec(),
        }
    }

    #[test]
    fn the_worst_place_is_named() {
        let check = Check::close(
            "x",
            &[1.0, 2.0, 3.5, 4.0],
            &array(&[1.0, 2.0, 3.0, 4.0]),
            1e-6,
        );
        assert!(!check.passed);
        assert_eq!((check.error, check.at.as_str()), (0.5, "[1, 0]"));
    }

    #[test]
    fn the_tolerance_is_the_references_error_times_the_factor() {
        let check = Check::close(
            "x",
            &[1.0, 2.0, 3.0, 4.0 + 7e-6],
            &array(&[1.0, 2.0, 3.0, 4.0]),
            1e-6,
        );
        assert!(check.passed && check.tolerance == FACTOR * 1e-6);
        let check = Check::close(
            "x",
            &[1.0, 2.0, 3.0, 4.0 + 9e-6],
            &array(&[1.0, 2.0, 3.0, 4.0]),
            1e-6,
        );
        assert!(!check.passed);
    }

    #[test]
    fn nan_and_missing_values_fail() {
        assert!(
            !Check::close(
                "x",
                &[f64::NAN, 2.0, 3.0, 4.0],
                &array(&[1.0, 2.0, 3.0, 4.0]),
                1.0
            )
            .passed
        );
        assert!(!Check::close("x", &[1.0], &array(&[1.0, 2.0, 3.0, 4.0]), 1.0).passed);
    }
}
