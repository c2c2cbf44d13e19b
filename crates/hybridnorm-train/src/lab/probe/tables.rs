//! A probe in tables.

use core::fmt;

use super::summary::{InitLoss, Row, Summary};

/// A table of a summary, a row for each placement and depth.
#[derive(Debug, Clone, PartialEq)]
pub struct SummaryTable {
    /// What it is of.
    pub title: &'static str,
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its cells.
    pub rows: Vec<Vec<String>>,
}

impl Summary {
    /// A table of each kind of measurement that there is.
    pub fn tables(&self) -> Vec<SummaryTable> {
        let tables = [self.layers(), self.coupling(), self.rates(), self.inits()];
        tables.into_iter().flatten().collect()
    }

    fn layers(&self) -> Option<SummaryTable> {
        let last = self.steps;
        self.table(
            "Gradients, stream and attention",
            |row| row.first_gradient_ratio.is_some(),
            &[
                "gradient, last/first, step 1",
                "max/min",
                &format!("step {last}"),
                "max/min",
                &format!("RMS, last/first, step {last}"),
                "similarity",
                "least entropy",
                "largest logit",
            ],
            |row| {
                vec![
                    or_dash(row.first_gradient_ratio, factor),
                    or_dash(row.first_gradient_spread, factor),
                    or_dash(row.last_gradient_ratio, factor),
                    or_dash(row.last_gradient_spread, factor),
                    or_dash(row.rms_growth, factor),
                    or_dash(row.token_similarity, |x| format!("{x:.3}")),
                    or_dash(row.least_entropy, |x| format!("{x:.2}")),
                    or_dash(row.largest_logit, significant),
                ]
            },
        )
    }

    fn coupling(&self) -> Option<SummaryTable> {
        self.table(
            "Coupling of weight scales",
            |row| row.coupling.is_some() || row.qkv_change.is_some(),
            &[
                "p of ∂S/∂W_Q ∝ c^p: W_K, W_V, W_O times c",
                "W_Q, W_K, W_V times c",
                "change of S by the latter",
            ],
            |row| {
                vec![
                    or_dash(row.coupling, |x| format!("{x:.2}")),
                    or_dash(row.qkv_exponent, |x| format!("{x:.2}")),
                    or_dash(row.qkv_change, |x| format!("{x:.1e}")),
                ]
            },
        )
    }

    fn rates(&self) -> Option<SummaryTable> {
        self.table(
            "Learning rates",
            |row| row.lr_holds.is_some() || row.lr_diverges.is_some(),
            &["largest rate that holds", "diverges at", "least loss at"],
            |row| {
                vec![
                    or_dash(row.lr_holds, rate),
                    or_dash(row.lr_diverges, rate),
                    or_dash(row.lr_best, rate),
                ]
            },
        )
    }

    fn inits(&self) -> Option<SummaryTable> {
        let losses = format!("loss after {} steps from each initialisation", self.steps);
        self.table(
            "Initialisations",
            |row| !row.inits.is_empty(),
            &[&losses, "apart"],
            |row| {
                let each = row.inits.iter().map(ended);
                vec![
                    each.collect::<Vec<_>>().join(", "),
                    or_dash(row.init_spread, |x| format!("{x:.3}")),
                ]
            },
        )
    }

    /// Placement and depth of each row, then what `figures` tells of it; `None` where `has` finds nothing to tell.
    fn table(
        &self,
        title: &'static str,
        has: fn(&Row) -> bool,
        columns: &[&str],
        figures: impl Fn(&Row) -> Vec<String>,
    ) -> Option<SummaryTable> {
        let names = ["placement", "layers"].iter().chain(columns);
        let row = |row: &Row| {
            let subject = [row.placement.clone(), row.depth.to_string()];
            subject.into_iter().chain(figures(row)).collect()
        };
        self.rows.iter().any(has).then(|| SummaryTable {
            title,
            columns: names.map(ToString::to_string).collect(),
            rows: self.rows.iter().map(row).collect(),
        })
    }
}

/// The tables in Markdown, and the answer.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in self.tables() {
            writeln!(f, "{table}")?;
        }
        writeln!(f, "{}", self.answer)
    }
}

/// In Markdown, its columns aligned.
impl fmt::Display for SummaryTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            let cells = lines().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        for (index, line) in lines().enumerate() {
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "| {cell:<width$} ")?;
            }
            writeln!(f, "|")?;
            if index == 0 {
                for width in &widths {
                    write!(f, "|{:-<1$}", "", width + 2)?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// How the runs from an initialisation ended.
fn ended(init: &InitLoss) -> String {
    let InitLoss {
        init,
        loss,
        diverged,
    } = init;
    match (loss, diverged) {
        (Some(loss), 0) => format!("{init} {loss:.3}"),
        (Some(loss), n) => format!("{init} {loss:.3} ({n} diverged)"),
        (None, _) => format!("{init} diverged"),
    }
}

/// `1.1e-2`.
pub(super) fn rate(lr: f64) -> String {
    format!("{lr:.1e}")
}

/// `×0.31`.
pub(super) fn factor(ratio: f64) -> String {
    match ratio {
        r if (0.01..1000.0).contains(&r) => format!("×{}", significant(r)),
        r => format!("×{r:.1e}"),
    }
}

/// Three digits that count.
fn significant(value: f64) -> String {
    let digits = 2.0 - value.abs().log10().floor();
    format!("{value:.*}", digits.clamp(0.0, 3.0) as usize)
}

fn or_dash(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_string(), show)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0.000"),
            (0.01234, "0.012"),
            (-1.2345, "-1.23"),
            (123.4, "123"),
            (12345.6, "12346"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(significant(value), text);
        }
        assert_eq!([factor(0.0), factor(4096.0)], ["×0.0e0", "×4.1e3"]);
    }
}
