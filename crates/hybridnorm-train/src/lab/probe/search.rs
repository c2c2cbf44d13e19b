//! Which learning rate to try next: out by factors of four until one holds and a larger one diverges, then bisection.
//!
//! Rates stand on a grid of half octaves around the first: `start · 2^(n/2)`. What is known is a pure function of the trials, so that a
//! search goes on from wherever it was cut off.

/// Half octaves of the largest steps: a factor of four.
const STRIDE: i32 = 4;
/// Half octaves between the first rate and the outermost: a factor of 4096.
const REACH: i32 = 24;

/// What is known of the largest learning rate that holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bracket {
    /// The largest that held; `None` where none did.
    pub holds: Option<f64>,
    /// The smallest above it that diverged; `None` where none did.
    pub diverges: Option<f64>,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Try this rate.
    Try(f64),
    /// Nothing: the bracket is half an octave wide, or open at an end of the reach.
    Done,
}

/// A rate of the grid.
fn rate(start: f64, place: i32) -> f64 {
    start * (f64::from(place) / 2.0).exp2()
}

/// The place of a rate on the grid.
fn place(start: f64, rate: f64) -> i32 {
    (2.0 * (rate / start).log2()).round() as i32
}

/// Places of the largest rate that holds and of the smallest above it that diverges. A rate that holds above one that diverges tells
/// nothing: it was luck, or the other was bad luck, and the smaller claim is made.
fn known(start: f64, trials: &[(f64, bool)]) -> (Option<i32>, Option<i32>) {
    let at = |diverged: bool| {
        let found = trials.iter().filter(move |trial| trial.1 == diverged);
        found.map(move |(rate, _)| place(start, *rate))
    };
    let diverges = at(true).min();
    let below = |place: &i32| diverges.is_none_or(|diverges| *place < diverges);
    (at(false).filter(below).max(), diverges)
}

/// The next rate to try, after `trials` of rates of which each diverged or did not.
pub fn next(start: f64, trials: &[(f64, bool)]) -> Next {
    let place = match known(start, trials) {
        (None, None) => 0,
        (Some(holds), None) => holds + STRIDE,
        (None, Some(diverges)) => diverges - STRIDE,
        (Some(holds), Some(diverges)) if diverges - holds > 1 => holds + (diverges - holds) / 2,
        (Some(_), Some(_)) => return Next::Done,
    };
    match place.abs() <= REACH {
        true => Next::Try(rate(start, place)),
        false => Next::Done,
    }
}

/// What `trials` say of the largest rate that holds.
pub fn bracket(start: f64, trials: &[(f64, bool)]) -> Bracket {
    let (holds, diverges) = known(start, trials);
    Bracket {
        holds: holds.map(|place| rate(start, place)),
        diverges: diverges.map(|place| rate(start, place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every trial of a search where rates from `boundary` on diverge.
    fn search(start: f64, boundary: f64) -> Vec<(f64, bool)> {
        let mut trials = Vec::new();
        while let Next::Try(rate) = next(start, &trials) {
            trials.push((rate, rate >= boundary));
            assert!(trials.len() < 20, "{trials:?}");
        }
        trials
    }

    #[test]
    fn a_known_boundary_is_found_to_half_an_octave() {
        for exponent in -30..30 {
            let boundary = 1e-3 * 1.31f64.powi(exponent);
            let trials = search(1e-3, boundary);
            let Bracket { holds, diverges } = bracket(1e-3, &trials);
            let (holds, diverges) = (holds.unwrap(), diverges.unwrap());
            assert!(holds < boundary && boundary <= diverges, "{trials:?}");
            assert!((diverges / holds / 2f64.sqrt() - 1.0).abs() < 1e-12);
            assert!(trials.len() <= 9, "{trials:?}");
        }
    }

    #[test]
    fn where_there_is_no_boundary_the_search_ends_and_says_so() {
        let all_hold = search(1e-3, f64::INFINITY);
        let found = bracket(1e-3, &all_hold);
        assert_eq!((found.holds, found.diverges), (Some(1e-3 * 4096.0), None));
        let none_holds = search(1e-3, 0.0);
        let found = bracket(1e-3, &none_holds);
        assert_eq!((found.holds, found.diverges), (None, Some(1e-3 / 4096.0)));
    }

    #[test]
    fn a_search_goes_on_from_where_it_was_cut_off() {
        let all = search(1e-3, 0.7);
        for cut in 0..all.len() {
            assert_eq!(next(1e-3, &all[..cut]), Next::Try(all[cut].0));
        }
    }

    #[test]
    fn luck_above_a_divergence_is_no_claim() {
        let trials = [(1e-3, false), (4e-3, true), (1.6e-2, false)];
        let found = bracket(1e-3, &trials);
        assert_eq!((found.holds, found.diverges), (Some(1e-3), Some(4e-3)));
    }
}
