//! Which document each token of a sequence belongs to.

/// Numbers the documents of one sequence from 0. The end-of-document id `end` belongs to the document it ends.
#[must_use]
pub fn document_numbers(ids: &[u32], end: u32) -> Vec<u32> {
    let mut number = 0;
    ids.iter()
        .map(|&id| {
            let of_this = number;
            number += u32::from(id == end);
            of_this
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_ends_with_its_end() {
        assert_eq!(
            document_numbers(&[5, 6, 9, 7, 9, 9, 8], 9),
            [0, 0, 0, 1, 1, 2, 3]
        );
        assert_eq!(document_numbers(&[9, 5], 9), [0, 1]);
        assert!(document_numbers(&[], 9).is_empty());
    }
}
