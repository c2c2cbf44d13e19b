//! The names of a model's parameters in a file format: one table for each format.

use crate::layout::{Layout, Piece};

/// One line of a format's table: a part of a [`Decoder`](hybridnorm_core::Decoder), and where a file holds it. In both, `*` stands
/// for the block's number.
#[derive(Debug)]
pub struct NameRow {
    /// The module's path, or the parameter's own where it is no module's `weight` or `bias`.
    pub ours: &'static str,
    /// What the file has.
    pub theirs: Theirs,
}

/// How a file holds a part of the model.
#[derive(Debug, Clone, Copy)]
pub enum Theirs {
    /// One tensor, as it is.
    Same(&'static str),
    /// One matrix, `[out, in]`.
    Linear(&'static str),
    /// A matrix for the queries, one for the keys, one for the values, each `[out, in]`.
    QueryKeyValue([&'static str; 3]),
    /// A matrix for the value half and one for the gate half of a gated projection, each `[out, in]`.
    ValueGate([&'static str; 2]),
    /// All experts' matrices one below the other, each as it is or `[out, in]`.
    Stack {
        /// The tensor.
        name: &'static str,
        /// Each is `[out, in]`.
        transposed: bool,
    },
    /// A matrix `[out, in]` for each expert; `#` stands for its number.
    Each(&'static str),
}

/// The names of one model's parameters in one format.
#[derive(Debug, Clone)]
pub struct NameMap {
    tables: &'static [&'static [NameRow]],
    /// Widths of the queries and of the keys.
    widths: (usize, usize),
    /// What names begin with in a file, and what they begin with in the tables instead.
    prefix: Option<(&'static str, &'static str)>,
    /// Tensors that are no part of the model, see [`ignores`](Self::ignores).
    ignored: Vec<&'static str>,
}

impl NameMap {
    /// The format of `tables`, for a model whose queries and keys have these widths.
    pub(crate) fn new(tables: &'static [&'static [NameRow]], widths: (usize, usize)) -> Self {
        Self {
            tables,
            widths,
            prefix: None,
            ignored: Vec::new(),
        }
    }

    /// The same format in a file where names begin with `there` and not with `here`.
    pub(crate) fn with_prefix(mut self, here: &'static str, there: &'static str) -> Self {
        self.prefix = Some((here, there));
        self
    }

    /// The same format with tensors that mean nothing here: a name (`*` stands for a number), or with a dot at its end all names that
    /// begin with it.
    pub(crate) fn ignoring(mut self, names: &[&'static str]) -> Self {
        self.ignored.extend(names);
        self
    }

    /// Whether a tensor is known to mean nothing here, so that it may be left over.
    pub fn ignores(&self, name: &str) -> bool {
        let mut patterns = self.ignored.iter();
        patterns.any(|pattern| match pattern.ends_with('.') {
            true => name.starts_with(pattern),
            false => matched(pattern, name).is_some(),
        })
    }

    /// A table's name as a file has it.
    fn spelled(&self, name: &str) -> String {
        let spelled = self.prefix.and_then(|(here, there)| {
            let rest = name.strip_prefix(here)?;
            Some(format!("{there}{rest}"))
        });
        spelled.unwrap_or_else(|| name.to_string())
    }

    /// Where a file holds the parameter at `path`, of `shape`; `None` where the format has no such parameter.
    pub fn layout(&self, path: &str, shape: &[usize]) -> Option<Layout> {
        if let Some((theirs, block)) = self.find(path) {
            return self.pieces(theirs, &block, "", shape);
        }
        let (module, leaf) = path.rsplit_once('.')?;
        let (theirs, block) = self.find(module)?;
        self.pieces(theirs, &block, &format!(".{leaf}"), shape)
    }

    /// The row for `path`, and its block's number.
    fn find(&self, path: &str) -> Option<(Theirs, String)> {
        let mut rows = self.tables.iter().flat_map(|table| table.iter());
        rows.find_map(|row| Some((row.theirs, matched(row.ours, path)?)))
    }

    fn pieces(&self, theirs: Theirs, block: &str, leaf: &str, shape: &[usize]) -> Option<Layout> {
        let groups = match shape {
            [groups, _, _] => *groups,
            _ => 1,
        };
        let width = shape.last().copied().unwrap_or(1);
        let piece = |name: &str, columns, transposed| Piece {
            name: format!("{}{leaf}", self.spelled(&name.replace('*', block))),
            groups: 0..groups,
            columns,
            transposed: transposed && shape.len() > 1,
        };
        let pieces = match theirs {
            Theirs::Same(name) => vec![piece(name, 0..width, false)],
            Theirs::Linear(name) => vec![piece(name, 0..width, true)],
            Theirs::QueryKeyValue([query, key, value]) => {
                let (q, k) = self.widths;
                if width != q + 2 * k {
                    return None;
                }
                vec![
                    piece(query, 0..q, true),
                    piece(key, q..q + k, true),
                    piece(value, q + k..width, true),
                ]
            }
            Theirs::ValueGate([value, gate]) => vec![
                piece(value, 0..width / 2, true),
                piece(gate, width / 2..width, true),
            ],
            Theirs::Stack { name, transposed } => vec![piece(name, 0..width, transposed)],
            Theirs::Each(name) => (0..groups)
                .map(|expert| Piece {
                    groups: expert..expert + 1,
                    ..piece(&name.replace('#', &expert.to_string()), 0..width, true)
                })
                .collect(),
        };
        Some(Layout::new(shape, pieces))
    }
}

/// What `*` stands for when `pattern` is `path`; empty where the pattern has none.
fn matched(pattern: &str, path: &str) -> Option<String> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == path).then(String::new);
    };
    let block = path.strip_prefix(before)?.strip_suffix(after)?;
    let is_number = !block.is_empty() && block.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| block.to_string())
}
