//! Medians, spreads and the table.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::engine::Sample;
use super::shape::Shape;

/// A shape and what both programs made of it.
pub struct Row {
    shape: Shape,
    rounds: u32,
    pub ours: Column,
    pub torch: Column,
    pub out_of_time: bool,
}

#[derive(Default)]
pub struct Column {
    samples: Vec<Sample>,
    failure: Option<String>,
}

impl Column {
    pub fn add(&mut self, result: Option<Result<Sample, String>>) {
        match result {
            Some(Ok(sample)) => self.samples.push(sample),
            Some(Err(reason)) => self.failure = Some(reason),
            None => {}
        }
    }

    pub fn rates(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.rate).collect()
    }

    fn params(&self) -> Option<u64> {
        self.samples.first()?.params
    }

    fn peak_gib(&self) -> Option<f64> {
        let peaks = self.samples.iter().filter_map(Sample::peak_gib);
        peaks.reduce(f64::max)
    }

    fn json(&self) -> Value {
        json!({
            "rates": self.rates(),
            "median_rate": Spread::of(self.rates()).map(|spread| spread.median),
            "peak_gib": self.peak_gib(),
            "params": self.params(),
            "engine": self.samples.first().and_then(|sample| sample.engine.as_ref()),
            "failure": self.failure,
        })
    }
}

/// A median between its smallest and largest value.
#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        };
        Some(Self { median, min, max })
    }
}

impl Row {
    pub fn new(shape: Shape, rounds: u32) -> Self {
        Self {
            shape,
            rounds,
            ours: Column::default(),
            torch: Column::default(),
            out_of_time: false,
        }
    }

    /// Whether the row may stand in a table.
    pub fn result(&self) -> Result<(), String> {
        for (name, column) in [("ours", &self.ours), ("PyTorch", &self.torch)] {
            if let Some(failure) = &column.failure {
                return Err(format!("{name}: {failure}"));
            }
        }
        if self.ours.samples.is_empty() && self.out_of_time {
            return Err("out of time before the first run".to_owned());
        }
        match (self.ours.params(), self.torch.params()) {
            (Some(ours), Some(torch)) if ours != torch => Err(format!(
                "not the same model: {ours} parameters beside PyTorch's {torch}"
            )),
            _ => Ok(()),
        }
    }

    /// Ours over PyTorch's, by pairs of neighbouring runs.
    fn ratio(&self) -> Option<Spread> {
        let pairs = self.ours.samples.iter().zip(&self.torch.samples);
        Spread::of(pairs.map(|(ours, torch)| ours.rate / torch.rate).collect())
    }

    /// What a token costs, as a multiple of what it costs in `other`: ours and PyTorch's.
    fn time_over(&self, other: &Self) -> [String; 2] {
        [(&self.ours, &other.ours), (&self.torch, &other.torch)].map(|(mine, other)| {
            let median = |column: &Column| Spread::of(column.rates()).map(|rate| rate.median);
            match (median(mine), median(other)) {
                (Some(mine), Some(other)) => format!("{:.2}", other / mine),
                _ => "–".to_owned(),
            }
        })
    }

    pub fn json(&self) -> Value {
        json!({
            "shape": self.shape,
            "unit": format!("{}/s", self.shape.measure.unit()),
            "rounds": self.rounds,
            "ours": self.ours.json(),
            "torch": self.torch.json(),
            "ratio": self.ratio().map(|ratio| {
                json!({ "median": ratio.median, "min": ratio.min, "max": ratio.max })
            }),
            "out_of_time": self.out_of_time,
            "problem": self.result().err(),
        })
    }
}

/// The table for a person, or for docs/performance.md.
pub fn markdown(devices: [&str; 2], no_torch: Option<&String>, rows: &[Row]) -> String {
    let [ours, torch] = devices;
    let mut units: Vec<&str> = rows.iter().map(|row| row.shape.measure.unit()).collect();
    units.dedup();
    let unit = units.join(" or ");
    let mut table = format!(
        "| shape | ours on {ours}, {unit}/s | PyTorch on {torch}, {unit}/s | ours / PyTorch | peak MiB, ours | PyTorch |\n|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let rate =
            |column: &Column, absent: &str| match (&column.failure, Spread::of(column.rates())) {
                (Some(failure), _) => format!("failed: {failure}"),
                (None, Some(Spread { median, min, max })) => {
                    format!("{median:.0} ({min:.0}–{max:.0})")
                }
                (None, None) => format!("not run: {absent}"),
            };
        let absent = no_torch.map_or("out of time", String::as_str);
        let ratio = match (row.result(), row.ratio()) {
            (Ok(()), Some(ratio)) => {
                format!("{:.2} ({:.2}–{:.2})", ratio.median, ratio.min, ratio.max)
            }
            (Err(problem), _) => problem,
            (Ok(()), None) => "–".to_owned(),
        };
        let (ours, torch) = (rate(&row.ours, "out of time"), rate(&row.torch, absent));
        let [peak_ours, peak_torch] = [&row.ours, &row.torch].map(|column| {
            let mib = column.peak_gib().map(|gib| 1024.0 * gib);
            mib.map_or("–".to_owned(), |mib| format!("{mib:.0}"))
        });
        let short = match row.out_of_time {
            true => format!(", {} of {} rounds", row.ours.samples.len(), row.rounds),
            false => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {}{short} | {ours} | {torch} | {ratio} | {peak_ours} | {peak_torch} |",
            row.shape
        );
    }
    table
}

/// How cost follows the number of experts, if sparse shapes were measured; every figure is from the rows themselves.
pub fn scaling(rows: &[Row]) -> Option<String> {
    let first = rows.iter().find(|row| row.shape.experts.is_some())?;
    let dense = rows.iter().find(|row| row.shape.name == "moe-dense");
    let mut table = format!(
        "| shape | time over {}, ours | PyTorch | time over dense, ours | PyTorch | peak GiB, ours | PyTorch |\n|---|---|---|---|---|---|---|\n",
        first.shape.name
    );
    for row in rows.iter().filter(|row| row.shape.experts.is_some()) {
        let over_first = row.time_over(first);
        let over_dense = dense.map_or(["–"; 2].map(str::to_owned), |dense| row.time_over(dense));
        let peaks = [&row.ours, &row.torch].map(|column| {
            column
                .peak_gib()
                .map_or("–".to_owned(), |gib| format!("{gib:.1}"))
        });
        let cells = [over_first, over_dense, peaks].concat().join(" | ");
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {} | {cells} |", row.shape);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(rates: &[f64], params: u64) -> Column {
        let mut column = Column::default();
        for rate in rates {
            let sample = serde_json::from_value(json!({ "tokens_per_s": rate, "params": params }));
            column.add(Some(sample.map_err(|error| error.to_string())));
        }
        column
    }

    fn row(ours: Column, torch: Column) -> Row {
        Row {
            ours,
            torch,
            ..Row::new("6m".parse().unwrap(), 3)
        }
    }

    #[test]
    fn a_median_is_the_middle_or_halfway_between_two() {
        let median = |values: &[f64]| Spread::of(values.to_vec()).map(|spread| spread.median);
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn the_ratio_is_of_neighbouring_runs() {
        let row = row(
            column(&[10.0, 40.0, 30.0], 1),
            column(&[20.0, 40.0, 20.0], 1),
        );
        assert_eq!(
            row.ratio(),
            Some(Spread {
                median: 1.0,
                min: 0.5,
                max: 1.5
            })
        );
        let table = markdown(["flex", "cpu"], None, &[row]);
        assert!(
            table.contains("| 6m seq 256 batch 4 | 30 (10–40) | 20 (20–40) | 1.00 (0.50–1.50) |"),
            "{table}"
        );
    }

    #[test]
    fn torch_that_did_not_run_is_called_so() {
        let row = row(column(&[10.0], 1), Column::default());
        let table = markdown(["flex", "cpu"], Some(&"no `python3`".to_owned()), &[row]);
        assert!(table.contains("| not run: no `python3` | – |"), "{table}");
    }

    #[test]
    fn the_cost_of_experts_is_that_of_a_token() {
        let sparse = |name: &str, ours: f64| Row {
            ours: column(&[ours], 1),
            ..Row::new(name.parse().unwrap(), 1)
        };
        let rows = [
            sparse("moe-dense", 50.0),
            sparse("moe-4", 40.0),
            sparse("moe-64", 20.0),
        ];
        let table = scaling(&rows).unwrap();
        assert!(
            table.contains("| moe-64 seq 256 batch 8 | 2.00 | – | 2.50 | – | – | – |"),
            "{table}"
        );
        assert!(!table.contains("| moe-dense"), "{table}");
        assert!(scaling(&rows[..1]).is_none());
    }

    #[test]
    fn different_models_are_not_compared() {
        let row = row(column(&[10.0], 1), column(&[10.0], 2));
        assert!(row.result().unwrap_err().contains("not the same model"));
        let table = markdown(["flex", "cpu"], None, &[row]);
        assert!(!table.contains("1.00"), "{table}");
    }
}
