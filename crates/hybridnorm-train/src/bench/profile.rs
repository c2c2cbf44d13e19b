//! Where the time of a step goes, operation by operation and layer by layer.

use core::fmt;

use hybridnorm_kernels::profile::Work;
use serde::Serialize;

/// Milliseconds of a step by place and operation, the mean over its steps; the fast paths of `flex` only.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// The operations that took any time.
    pub operations: Vec<&'static str>,
    /// Embedding, final norm, head and optimiser; then each layer. Milliseconds of each operation.
    pub places: Vec<Vec<f64>>,
}

impl Profile {
    /// `places`: milliseconds in each of [`Work::ALL`], outside all layers and then in each.
    pub(super) fn new(places: &[Vec<f64>]) -> Self {
        let spent = |at: &usize| places.iter().any(|place| place[*at] > 0.0);
        let used: Vec<usize> = (0..Work::ALL.len()).filter(spent).collect();
        Self {
            operations: used.iter().map(|at| Work::ALL[*at].1).collect(),
            places: places
                .iter()
                .map(|place| used.iter().map(|at| place[*at]).collect())
                .collect(),
        }
    }

    /// Milliseconds of each operation in all places together.
    pub fn totals(&self) -> Vec<f64> {
        let total = |at: usize| self.places.iter().map(|place| place[at]).sum();
        (0..self.operations.len()).map(total).collect()
    }
}

/// A table: a row for each operation, a column for each layer.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operations.is_empty() {
            return writeln!(f, "Only flex tells where the time goes.");
        }
        let widest = self.operations.iter().map(|name| name.len()).max();
        let width = widest.unwrap_or(0).max("ms of a step".len());
        write!(f, "{:width$} {:>8} {:>8}", "ms of a step", "all", "outside")?;
        for layer in 1..self.places.len() {
            write!(f, " {:>7}", format!("layer {}", layer - 1))?;
        }
        writeln!(f)?;
        let row = |f: &mut fmt::Formatter<'_>, name: &str, ms: Vec<f64>| {
            let all: f64 = ms.iter().sum();
            write!(f, "{name:width$} {all:8.2}")?;
            for (at, ms) in ms.iter().enumerate() {
                let width = if at == 0 { 8 } else { 7 };
                write!(f, " {ms:width$.2}")?;
            }
            writeln!(f)
        };
        for (at, name) in self.operations.iter().enumerate() {
            row(f, name, self.places.iter().map(|place| place[at]).collect())?;
        }
        let sums = self.places.iter().map(|place| place.iter().sum());
        row(f, "all of these", sums.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two places, of which only the second norms; nothing else takes time but products.
    fn profile() -> Profile {
        let mut places = vec![vec![0.0; Work::ALL.len()]; 2];
        places[1][Work::Norm as usize] = 1.5;
        places[0][Work::Products as usize] = 4.0;
        places[1][Work::Products as usize] = 6.0;
        Profile::new(&places)
    }

    #[test]
    fn what_takes_no_time_is_left_out_and_places_add_up() {
        let profile = profile();
        assert_eq!(profile.operations, ["norms", "products with the weights"]);
        assert_eq!(profile.places, [[0.0, 4.0], [1.5, 6.0]]);
        assert_eq!(profile.totals(), [1.5, 10.0]);
    }

    #[test]
    fn the_table_has_a_column_for_each_layer() {
        let table = profile().to_string();
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[0],
            ["ms", "of", "a", "step", "all", "outside", "layer", "0"]
        );
        assert_eq!(lines[2][4..], ["10.00", "4.00", "6.00"]);
        assert_eq!(lines[3][3..], ["11.50", "4.00", "7.50"]);
    }
}
