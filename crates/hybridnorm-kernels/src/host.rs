//! What backends in the host's memory share.

/// The columns of the `k` largest values of each row, largest first, the lower column first among equals. Reads each row once and
/// keeps the best so far in order: for a few of many that is less work than sorting.
pub(crate) fn top_k<T: PartialOrd + Copy>(values: &[T], columns: usize, k: usize) -> Vec<i32> {
    let mut best: Vec<(T, i32)> = Vec::with_capacity(k);
    let mut chosen = Vec::with_capacity(values.len() / columns * k);
    for row in values.chunks_exact(columns) {
        best.clear();
        for (value, column) in row.iter().zip(0..) {
            let is_better = |(other, _): &(T, i32)| value > other;
            let at = best.partition_point(|other| !is_better(other));
            if at < k {
                best.truncate(k - 1);
                best.insert(at, (*value, column));
            }
        }
        chosen.extend(best.iter().map(|(_, column)| *column));
    }
    chosen
}
