//! How a parameter lies in a file: as one tensor, as several, whole or in parts.

use crate::tensors::Array;

/// A tensor of a file, and the part of a parameter that it holds.
///
/// A parameter is seen as a stack of matrices `[groups, rows, columns]`: a linear layer is one matrix `[in, out]`, a vector one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The tensor's name.
    pub name: String,
    /// Which matrices of the stack; the tensor holds them one below the other.
    pub groups: std::ops::Range<usize>,
    /// Which of their columns.
    pub columns: std::ops::Range<usize>,
    /// The tensor holds each matrix as `[out, in]` (PyTorch), the parameter as `[in, out]`.
    pub transposed: bool,
}

/// All tensors of a file that make up one parameter: together they cover it, and no two overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    shape: Vec<usize>,
    pieces: Vec<Piece>,
}

impl Layout {
    /// A parameter of `shape` in `pieces`.
    pub(crate) fn new(shape: &[usize], pieces: Vec<Piece>) -> Self {
        Self {
            shape: shape.to_vec(),
            pieces,
        }
    }

    /// The names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().map(|piece| piece.name.as_str())
    }

    /// The parameter, from the tensors that `read` gives.
    ///
    /// # Errors
    /// What `read` says; and the name of a tensor that has another shape.
    pub fn join(
        &self,
        mut read: impl FnMut(&str) -> Result<Array, String>,
    ) -> Result<Array, String> {
        let mut values = vec![0.0; self.shape.iter().product()];
        for piece in &self.pieces {
            let found = read(&piece.name)?;
            let expected = self.shape_of(piece);
            if found.shape != expected {
                return Err(format!(
                    "\"{}\" has shape {:?}, the model needs {expected:?}",
                    piece.name, found.shape
                ));
            }
            for (value, at) in found.values.iter().zip(self.places(piece)) {
                values[at] = *value;
            }
        }
        Ok(Array {
            shape: self.shape.clone(),
            values,
        })
    }

    /// The tensors that hold `parameter`, or its gradient, by name.
    ///
    /// # Panics
    /// When `parameter` has another shape, which is a programming mistake.
    pub fn split(&self, parameter: &Array) -> Vec<(String, Array)> {
        assert_eq!(parameter.shape, self.shape, "the shape of a parameter");
        let tensor = |piece: &Piece| Array {
            shape: self.shape_of(piece),
            values: self.places(piece).map(|at| parameter.values[at]).collect(),
        };
        let pieces = self.pieces.iter();
        pieces
            .map(|piece| (piece.name.clone(), tensor(piece)))
            .collect()
    }

    /// Rows and columns of each matrix.
    fn matrix(&self) -> (usize, usize) {
        match self.shape[..] {
            [.., rows, columns] => (rows, columns),
            [columns] => (1, columns),
            [] => (1, 1),
        }
    }

    fn shape_of(&self, piece: &Piece) -> Vec<usize> {
        let (rows, _) = self.matrix();
        let columns = piece.columns.len();
        match (self.shape.len(), piece.transposed) {
            (0, _) => Vec::new(),
            (1, _) => vec![columns],
            (_, false) => vec![piece.groups.len() * rows, columns],
            (_, true) => vec![piece.groups.len() * columns, rows],
        }
    }

    /// Where in the parameter each number of the tensor belongs, in the tensor's order.
    fn places(&self, piece: &Piece) -> impl Iterator<Item = usize> {
        let (rows, width) = self.matrix();
        let Piece {
            groups,
            columns,
            transposed,
            ..
        } = piece.clone();
        let (outer, inner) = match transposed {
            false => (0..rows, columns),
            true => (columns, 0..rows),
        };
        let place = move |group: usize, outer: usize, inner: usize| {
            let (row, column) = match transposed {
                false => (outer, inner),
                true => (inner, outer),
            };
            (group * rows + row) * width + column
        };
        groups.flat_map(move |group| {
            let inner = inner.clone();
            let line = move |o: usize| inner.clone().map(move |i| place(group, o, i));
            outer.clone().flat_map(line)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(shape: &[usize]) -> Array {
        let n: usize = shape.iter().product();
        Array {
            shape: shape.to_vec(),
            values: (0..n).map(|x| x as f64).collect(),
        }
    }

    fn piece(
        name: &str,
        groups: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        transposed: bool,
    ) -> Piece {
        Piece {
            name: name.to_string(),
            groups,
            columns,
            transposed,
        }
    }

    #[test]
    fn columns_part_and_join() {
        let pieces = vec![piece("q", 0..1, 0..1, true), piece("k", 0..1, 1..3, true)];
        let layout = Layout::new(&[2, 3], pieces);
        let parts = layout.split(&array(&[2, 3]));
        assert_eq!(parts[0].1.values, [0.0, 3.0]);
        assert_eq!(parts[1].1.shape, [2, 2]);
        assert_eq!(parts[1].1.values, [1.0, 4.0, 2.0, 5.0]);
        let read = |name: &str| {
            let mut parts = parts.iter();
            let found = parts.find(|(part, _)| part == name);
            Ok(found.unwrap().1.clone())
        };
        assert_eq!(layout.join(read).unwrap(), array(&[2, 3]));
    }

    #[test]
    fn stacks_lie_whole_or_matrix_by_matrix() {
        let whole = Layout::new(&[2, 2, 3], vec![piece("w1", 0..2, 0..3, true)]);
        let parts = whole.split(&array(&[2, 2, 3]));
        assert_eq!(parts[0].1.shape, [6, 2]);
        assert_eq!(parts[0].1.values[..4], [0.0, 3.0, 1.0, 4.0]);
        assert_eq!(parts[0].1.values[6..8], [6.0, 9.0]);
        let each = vec![piece("0", 0..1, 0..3, false), piece("1", 1..2, 0..3, false)];
        let each = Layout::new(&[2, 2, 3], each).split(&array(&[2, 2, 3]));
        assert_eq!(each[1].1.shape, [2, 3]);
        assert_eq!(each[1].1.values, [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    }

    #[test]
    fn another_shape_is_refused_by_name() {
        let layout = Layout::new(&[2, 3], vec![piece("w", 0..1, 0..3, true)]);
        let error = layout.join(|_| Ok(array(&[2, 3]))).unwrap_err();
        assert!(error.contains("\"w\" has shape [2, 3]"), "{error}");
    }
}
