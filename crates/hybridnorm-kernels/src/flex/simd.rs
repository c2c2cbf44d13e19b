//! Loops over f32, compiled for the vectors of the CPU at hand.

use pulp::Arch;

/// Numbers that are computed side by side.
pub(super) const LANES: usize = 16;

/// Rows of so many numbers are worth four times as many sums.
const LONG: usize = 256;

/// Runs `f` compiled for the widest vectors that the CPU has; for that `f` has to be inlined, which a long closure is only where it says
/// `#[inline(always)]`, and whatever it calls. Loops over zipped slices become vectors, loops over indices only where lengths are known.
#[inline(always)]
pub(super) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(f)
}

/// Runs `f` with a length, compiled for the usual ones of heads: loops over so many numbers are unrolled, and keep their rows in registers. `f`
/// has to be inlined.
#[inline(always)]
pub(super) fn of_length<R>(length: usize, f: impl FnOnce(usize) -> R) -> R {
    match length {
        32 => f(32),
        64 => f(64),
        128 => f(128),
        length => f(length),
    }
}

/// Σ a·b.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_of(a, b, |a, b| a * b)
}

/// Σ f(a, b), as [`LANES`] sums that are added up in the end; four times as many of a long row, for each sum waits for the one before.
#[inline(always)]
pub(super) fn sum_of(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let n = a.len().min(b.len());
    let ((a, a_rest), (b, b_rest)) = (a[..n].as_chunks::<LANES>(), b[..n].as_chunks::<LANES>());
    let mut sums = [0f32; LANES];
    let add = |sums: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]| {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    };
    let fours = if n < LONG { 0 } else { a.len() / 4 * 4 };
    let ((fours_a, a), (fours_b, b)) = (a.split_at(fours), b.split_at(fours));
    let mut four = [[0f32; LANES]; 4];
    for (a, b) in fours_a.chunks_exact(4).zip(fours_b.chunks_exact(4)) {
        for (sums, (a, b)) in four.iter_mut().zip(a.iter().zip(b)) {
            add(sums, a, b);
        }
    }
    if fours > 0 {
        for lane in 0..LANES {
            sums[lane] = (four[0][lane] + four[1][lane]) + (four[2][lane] + four[3][lane]);
        }
    }
    for (a, b) in a.iter().zip(b) {
        add(&mut sums, a, b);
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| f(*a, *b));
    halve(sums, |a, b| a + b) + rest.sum::<f32>()
}

/// The largest value.
#[inline(always)]
pub(super) fn max(values: &[f32]) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            most[lane] = larger(most[lane], chunk[lane]);
        }
    }
    rest.iter().fold(halve(most, larger), |a, b| larger(a, *b))
}

/// `f32::max` without its care for NaN, which is what the instruction computes.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Combines the lanes pairwise.
#[inline(always)]
fn halve(mut lanes: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut n = LANES / 2;
    while n > 0 {
        for lane in 0..n {
            lanes[lane] = f(lanes[lane], lanes[lane + n]);
        }
        n /= 2;
    }
    lanes[0]
}

/// Replaces each `x` by exp(x − by), and gives the sum.
#[inline(always)]
pub(super) fn exp_and_sum(values: &mut [f32], by: f32) -> f32 {
    let (chunks, rest) = values.as_chunks_mut::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for lane in 0..LANES {
            chunk[lane] = exp(chunk[lane] - by);
            sums[lane] += chunk[lane];
        }
    }
    let mut sum = halve(sums, |a, b| a + b);
    for x in rest {
        *x = exp(*x - by);
        sum += *x;
    }
    sum
}

/// Σ exp(x − by).
#[inline(always)]
pub(super) fn sum_of_exp(values: &[f32], by: f32) -> f32 {
    sum_of(values, values, |x, _| exp(x - by))
}

/// e^x to 2 units in the last place, 0 below the normal numbers and NaN for NaN: n = round(x/ln 2), and a polynomial for the rest of at
/// most ln 2/2, times 2ⁿ. Branches on nothing, so that a loop of it becomes vectors.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding it rounds to an integer, in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts; n times the first is exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let small = x < -87.0;
    let x = if x > 88.7 { f32::INFINITY } else { x };
    let bounded = if small { -87.0 } else { x };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * LN_2[0] - n * LN_2[1];
    let mut p = 1.0 / 5040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + c;
    }
    // 2ⁿ in two steps: n may be 128.
    let n = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let y = p * power(half) * power(n.wrapping_sub(half));
    let y = if x > 88.7 { f32::INFINITY } else { y };
    if small { 0.0 } else { y }
}

/// tanh(x) to 2 units in the last place, and its slope 1 − tanh², which that difference would give without its digits where x is large.
/// From u = e^−2|x|: 1 − 2u/(1 + u), as near to 1 as numbers are where it is multiplied by a large cap, and 4u/(1 + u)²; below 0.8, where the
/// first loses digits, the continued fraction of [`softcap`](crate::softcap()), half a rounding off there.
#[inline(always)]
fn tanh_and_slope(x: f32) -> [f32; 2] {
    let square = x * x;
    let above = 945.0 + square * (105.0 + square);
    let below = 945.0 + square * (420.0 + square * 15.0);
    let small = x * above / below;
    let u = exp(-2.0 * x.abs());
    let share = 1.0 / (1.0 + u);
    let large = (1.0 - 2.0 * u * share).copysign(x);
    [
        if square > 0.64 { large } else { small },
        4.0 * u * share * share,
    ]
}

/// Replaces each `x` by cap·tanh(x/cap).
#[inline(always)]
pub(super) fn softcap(values: &mut [f32], cap: f32) {
    for x in values {
        *x = cap * tanh_and_slope(*x / cap)[0];
    }
}

/// As [`softcap`], with the slopes of it.
#[inline(always)]
pub(super) fn softcap_and_slopes(values: &mut [f32], slopes: &mut [f32], cap: f32) {
    for (x, slope) in values.iter_mut().zip(slopes) {
        let [tanh, own] = tanh_and_slope(*x / cap);
        (*x, *slope) = (cap * tanh, own);
    }
}

/// 1/(1 + e^−x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every f32 in steps, against the f64 function.
    #[test]
    fn exp_is_right_to_two_units() {
        let mut worst = 0f64;
        for bits in (0..=u32::MAX).step_by(9_973) {
            let x = f32::from_bits(bits);
            let (found, exact) = (exp(x), f64::from(x).exp());
            if x.is_nan() {
                assert!(found.is_nan());
            } else if x < -87.0 {
                assert!(
                    found == 0.0 || exact > 0.0 && f64::from(found) <= 1.3e-38,
                    "{x}"
                );
            } else if x > 88.7 {
                assert!(found == f32::INFINITY || f64::from(found) / exact - 1.0 < 1e-6);
            } else {
                let unit = exact * f64::from(f32::EPSILON);
                worst = worst.max((f64::from(found) - exact).abs() / unit);
            }
        }
        assert!(worst < 2.0, "{worst}");
    }

    /// Every f32 in steps, against the f64 functions.
    #[test]
    fn tanh_is_right_to_two_units_and_its_slope_to_six() {
        let mut worst = [0f64; 2];
        for bits in (0..=u32::MAX).step_by(9_973) {
            let x = f32::from_bits(bits);
            let found = tanh_and_slope(x);
            let exact = [f64::from(x).tanh(), 1.0 / f64::from(x).cosh().powi(2)];
            if x.is_nan() {
                assert!(found.iter().all(|y| y.is_nan()));
                continue;
            }
            for ((worst, found), exact) in worst.iter_mut().zip(found).zip(exact) {
                // Numbers below the normal ones have fewer digits.
                if exact.abs() > 1e-30 {
                    let unit = exact.abs() * f64::from(f32::EPSILON);
                    *worst = worst.max((f64::from(found) - exact).abs() / unit);
                }
            }
        }
        assert!(worst[0] < 2.0 && worst[1] < 6.0, "{worst:?}");
    }

    #[test]
    fn sums_and_maxima_see_every_element() {
        for n in [1, 15, 16, 17, 48, 100, 256, 300, 333] {
            let values: Vec<f32> = (1..=n).map(|x| x as f32).collect();
            let ones = vec![1f32; n];
            assert_eq!(dot(&values, &ones), (n * (n + 1) / 2) as f32);
            assert_eq!(max(&values), n as f32);
            let mut zeros = vec![3f32; n];
            assert_eq!(exp_and_sum(&mut zeros, 3.0), n as f32);
            assert_eq!(sum_of_exp(&values, 1e9), 0.0);
            assert_eq!(zeros, ones);
        }
    }
}
