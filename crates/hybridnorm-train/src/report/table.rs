//! The numbers behind a picture.

use core::fmt;

/// Columns of numbers and words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Their names.
    pub columns: Vec<String>,
    /// Rows with one cell for each column.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// Nothing is known.
    Empty,
    /// A count.
    Count(u64),
    /// A number.
    Number(f64),
    /// Words.
    Text(String),
}

impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Number(value)
    }
}

impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Count(value)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_string())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Empty, T::into)
    }
}

/// All digits: what is read back is the same number.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Count(count) => write!(f, "{count}"),
            Self::Number(value) if value.abs() >= 1e-4 && value.abs() < 1e15 => {
                write!(f, "{value}")
            }
            Self::Number(value) if *value == 0.0 => f.write_str("0"),
            Self::Number(value) => write!(f, "{value:e}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Table {
    /// Columns of these names, without rows.
    pub fn new<T: Into<String>>(columns: impl IntoIterator<Item = T>) -> Self {
        Self {
            columns: columns.into_iter().map(T::into).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, row: impl IntoIterator<Item = Cell>) {
        self.rows.push(row.into_iter().collect());
    }

    /// As comma-separated values (RFC 4180), the names of the columns first.
    pub fn csv(&self) -> String {
        let names = self.columns.iter().map(|name| quoted(name));
        let mut text = names.collect::<Vec<_>>().join(",");
        text.push_str("\r\n");
        for row in &self.rows {
            let cells = row.iter().map(|cell| quoted(&cell.to_string()));
            text += &cells.collect::<Vec<_>>().join(",");
            text.push_str("\r\n");
        }
        text
    }
}

fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_every_digit() {
        for value in [0.1 + 0.2, 1.0 / 3.0, 2e-5, -7.25e300, 0.0, 123456789.125] {
            let text = Cell::Number(value).to_string();
            assert_eq!(text.parse::<f64>().unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_would_end_a_cell_is_quoted() {
        let mut table = Table::new(["a", "b,c"]);
        table.push(["say \"hi\"".into(), Cell::Empty]);
        table.push([1u64.into(), 0.5.into()]);
        let text = "a,\"b,c\"\r\n\"say \"\"hi\"\"\",\r\n1,0.5\r\n";
        assert_eq!(table.csv(), text);
    }
}
