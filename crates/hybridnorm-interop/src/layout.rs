//! How a parameter lies in a file: as one tensor, as several, whole or in parts.

use crate::tensors::{Array, Numbers, View};

/// Rows and columns that are turned over at once: both sides of a block fit the first-level cache.
const BLOCK: usize = 32;

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
            self.check_shape(piece, &found.shape)?;
            for (value, at) in found.values.iter().zip(self.places(piece)) {
                values[at] = *value;
            }
        }
        Ok(Array {
            shape: self.shape.clone(),
            values,
        })
    }

    /// The names of the tensors and the shapes that they need.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, Vec<usize>)> {
        let pieces = self.pieces.iter();
        pieces.map(|piece| (piece.name.as_str(), self.shape_of(piece)))
    }

    /// The parameter's numbers in single precision: `read` is called with each tensor's name, and hands the tensor on to what puts it in its
    /// place.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub fn fill(
        &self,
        mut read: impl FnMut(&str, &mut dyn FnMut(View<'_>) -> Result<(), String>) -> Result<(), String>,
    ) -> Result<Vec<f32>, String> {
        let mut values = vec![0f32; self.shape.iter().product()];
        let (rows, width) = self.matrix();
        for piece in &self.pieces {
            let mut place = |found: View<'_>| {
                self.check_shape(piece, found.shape)?;
                let place = Place {
                    out: &mut values,
                    piece,
                    rows,
                    width,
                };
                let placed = found.numbers(place);
                placed.ok_or_else(|| format!("\"{}\" has a type that is not read", piece.name))
            };
            read(&piece.name, &mut place)?;
        }
        Ok(values)
    }

    fn check_shape(&self, piece: &Piece, found: &[usize]) -> Result<(), String> {
        let expected = self.shape_of(piece);
        match found == expected {
            true => Ok(()),
            false => Err(format!(
                "\"{}\" has shape {found:?}, the model needs {expected:?}",
                piece.name
            )),
        }
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

    /// The numbers of tensor `index` in its own order, from those of the parameter.
    ///
    /// # Panics
    /// When there is no such tensor, or the parameter has another size, which are programming mistakes.
    pub(crate) fn part(&self, index: usize, parameter: &[f32]) -> Vec<f32> {
        let piece = &self.pieces[index];
        let (rows, width) = self.matrix();
        let columns = piece.columns.clone();
        let mut out = vec![0.0; piece.groups.len() * rows * columns.len()];
        if out.is_empty() {
            return out;
        }
        let matrices = parameter
            .chunks_exact(rows * width)
            .skip(piece.groups.start);
        for (out, matrix) in out.chunks_exact_mut(rows * columns.len()).zip(matrices) {
            let lines = matrix
                .chunks_exact(width)
                .map(|line| &line[columns.clone()]);
            if !piece.transposed {
                let outs = out.chunks_exact_mut(columns.len());
                outs.zip(lines)
                    .for_each(|(out, line)| out.copy_from_slice(line));
                continue;
            }
            let lines: Vec<&[f32]> = lines.collect();
            for (block, lines) in lines.chunks(BLOCK).enumerate() {
                for (column, out) in out.chunks_exact_mut(rows).enumerate() {
                    let out = &mut out[block * BLOCK..][..lines.len()];
                    out.iter_mut()
                        .zip(lines)
                        .for_each(|(out, line)| *out = line[column]);
                }
            }
        }
        out
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

/// Puts the numbers of a tensor where they belong in a parameter of matrices of `rows` and `width`.
struct Place<'a> {
    out: &'a mut [f32],
    piece: &'a Piece,
    rows: usize,
    width: usize,
}

impl Numbers for Place<'_> {
    type Output = ();

    fn of<const N: usize>(self, numbers: &[[u8; N]], read: impl Fn([u8; N]) -> f64 + Copy) {
        let Self {
            out,
            piece,
            rows,
            width,
        } = self;
        let (first, columns) = (piece.columns.start, piece.columns.len());
        if rows * columns == 0 {
            return;
        }
        let matrices = numbers.chunks_exact(rows * columns);
        for (group, matrix) in piece.groups.clone().zip(matrices) {
            let out = &mut out[group * rows * width..][..rows * width];
            if !piece.transposed {
                let lines = out
                    .chunks_exact_mut(width)
                    .zip(matrix.chunks_exact(columns));
                for (line, values) in lines {
                    for (out, value) in line[first..][..columns].iter_mut().zip(values) {
                        *out = read(*value) as f32;
                    }
                }
                continue;
            }
            for row_block in (0..rows).step_by(BLOCK) {
                let block = row_block..(row_block + BLOCK).min(rows);
                for column_block in (0..columns).step_by(BLOCK) {
                    let columns = column_block..(column_block + BLOCK).min(columns);
                    for row in block.clone() {
                        let line = &mut out[row * width + first..];
                        for column in columns.clone() {
                            line[column] = read(matrix[column * rows + row]) as f32;
                        }
                    }
                }
            }
        }
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

    /// The fast way to single precision and the plain one agree, blocks and edges included.
    #[test]
    fn filling_is_joining() {
        let shape = [3, 70, 45];
        let pieces = vec![
            piece("a", 0..2, 0..33, true),
            piece("b", 0..2, 33..45, false),
            piece("c", 2..3, 0..45, true),
        ];
        let layout = Layout::new(&shape, pieces);
        let parameter = array(&shape);
        let parts = layout.split(&parameter);
        let bytes = parts.iter().map(|(name, part)| {
            let bytes = part.values.iter().flat_map(|x| (*x as f32).to_le_bytes());
            (name, &part.shape, bytes.collect::<Vec<u8>>())
        });
        let bytes: Vec<_> = bytes.collect();
        let filled = layout.fill(|name, place| {
            let found = bytes.iter().find(|(part, _, _)| *part == name).unwrap();
            let (_, shape, bytes) = found;
            place(View {
                dtype: safetensors::Dtype::F32,
                shape,
                bytes,
            })
        });
        let expected = parameter.values.iter().map(|x| *x as f32);
        assert_eq!(filled.unwrap(), expected.collect::<Vec<_>>());
    }

    /// The fast way out and the plain one agree, blocks and edges included.
    #[test]
    fn parts_are_what_splitting_gives() {
        let shape = [3, 70, 45];
        let pieces = vec![
            piece("a", 0..2, 0..33, true),
            piece("b", 0..2, 33..45, false),
            piece("c", 2..3, 0..45, true),
        ];
        let layout = Layout::new(&shape, pieces);
        let parameter = array(&shape);
        let values: Vec<f32> = parameter.values.iter().map(|x| *x as f32).collect();
        let tensors: Vec<_> = layout.tensors().collect();
        for (index, (name, array)) in layout.split(&parameter).into_iter().enumerate() {
            assert_eq!(tensors[index], (name.as_str(), array.shape));
            let part = layout.part(index, &values);
            assert!(part.iter().map(|x| f64::from(*x)).eq(array.values));
        }
    }

    #[test]
    fn another_shape_is_refused_by_name() {
        let layout = Layout::new(&[2, 3], vec![piece("w", 0..1, 0..3, true)]);
        let error = layout.join(|_| Ok(array(&[2, 3]))).unwrap_err();
        assert!(error.contains("\"w\" has shape [2, 3]"), "{error}");
    }
}
