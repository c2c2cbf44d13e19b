//! Validation windows: every held-out token a target exactly once, with its bytes accounted for.

use super::batches::require_positive;
use super::{DataError, ValidationSplit};

/// The held-out tokens cut into consecutive windows of `seq` targets, the last of which may be shorter.
///
/// The first input of a window is the token before its first target; before the first token of all stands the
/// end-of-document id. When windows are capped, those taken are spread evenly over the split, and
/// [`Validation::text`] and [`Validation::bytes`] speak of these windows only, so that whatever is scored on that
/// text is scored on what the model is scored on.
///
/// Bits per byte is the sum of the cross-entropy over all targets in nats, divided by `ln 2` and by
/// [`Validation::bytes`]. End-of-document targets count in the sum and stand for 0 bytes: a model pays for saying
/// where a document ends, which a compressor of the bare text does not.
#[derive(Debug, Clone)]
pub struct Validation {
    split: ValidationSplit,
    seq: usize,
    windows: Vec<usize>,
}

/// Some windows side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationBatch {
    /// Number of windows.
    pub rows: usize,
    /// `[rows, seq + 1]` token ids in row-major order. A short row is filled up with its last id.
    pub tokens: Vec<u32>,
    /// For each row, how many of its `seq` targets count, from the first on. At least 1.
    pub targets: Vec<usize>,
}

impl Validation {
    /// Windows of `seq` targets over `split`; at most `max_windows` of them when given, evenly spaced.
    ///
    /// # Errors
    ///
    /// `seq` or `max_windows` is 0, or the split has fewer than two tokens.
    pub fn new(
        split: ValidationSplit,
        seq: usize,
        max_windows: Option<usize>,
    ) -> Result<Self, DataError> {
        require_positive("seq", seq)?;
        require_positive("maximum of validation windows", max_windows.unwrap_or(1))?;
        let tokens = split.split.tokens.len();
        if tokens < 2 {
            return Err(DataError::TooShort {
                split: "validation",
                tokens,
                needed: 2,
            });
        }
        let total = tokens.div_ceil(seq);
        let count = max_windows.unwrap_or(total).min(total);
        // `u128`, since the product of two lengths need not fit.
        let windows = (0..count)
            .map(|k| (k as u128 * total as u128 / count as u128) as usize)
            .collect();
        Ok(Self {
            split,
            seq,
            windows,
        })
    }

    /// Number of windows.
    #[must_use]
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Number of targets over all windows.
    #[must_use]
    pub fn targets(&self) -> u64 {
        self.windows
            .iter()
            .map(|&w| self.range(w).len() as u64)
            .sum()
    }

    /// UTF-8 bytes behind the targets of all windows.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.windows
            .iter()
            .map(|&w| self.text_of(w).len() as u64)
            .sum()
    }

    /// The bytes behind the targets of all windows, in order. Where windows are capped and a token holds part of a
    /// character, a cut may fall inside the character.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let texts: Vec<&[u8]> = self.windows.iter().map(|&w| self.text_of(w)).collect();
        texts.concat()
    }

    /// All windows in order, `rows` at a time; the last batch may have fewer.
    ///
    /// # Errors
    ///
    /// `rows` is 0.
    pub fn batches(
        &self,
        rows: usize,
    ) -> Result<impl ExactSizeIterator<Item = ValidationBatch> + '_, DataError> {
        require_positive("rows", rows)?;
        Ok(self.windows.chunks(rows).map(|windows| self.batch(windows)))
    }

    fn batch(&self, windows: &[usize]) -> ValidationBatch {
        let store = &self.split.split.tokens;
        let mut batch = ValidationBatch {
            rows: windows.len(),
            tokens: Vec::with_capacity(windows.len() * (self.seq + 1)),
            targets: Vec::with_capacity(windows.len()),
        };
        for &window in windows {
            let range = self.range(window);
            // The token before the first target; the ring puts the last end-of-document id before token 0.
            let start = range.start + store.len() - 1;
            let ids = store.window(start, range.len() + 1);
            let padding = self.seq - range.len();
            let last = ids.last().copied();
            batch.tokens.extend(ids);
            batch.tokens.extend(last.into_iter().cycle().take(padding));
            batch.targets.push(range.len());
        }
        batch
    }

    /// The positions of a window's targets.
    fn range(&self, window: usize) -> std::ops::Range<usize> {
        let start = window * self.seq;
        start..(start + self.seq).min(self.split.split.tokens.len())
    }

    fn text_of(&self, window: usize) -> &[u8] {
        let range = self.range(window);
        let before = |position: usize| match position {
            0 => 0,
            _ => self.split.ends[position - 1],
        };
        &self.split.text[before(range.start)..before(range.end)]
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tokenizer::tests::{WORDS, words};
    use super::super::{SplitRule, TextSplit, Tokenizer};
    use super::*;

    fn split(texts: &[&str], tokenizer: &Tokenizer) -> ValidationSplit {
        let split = TextSplit {
            train: vec!["unused"],
            validation: texts.to_vec(),
            rule: SplitRule::Documents,
        };
        split.tokenize(tokenizer).unwrap().validation
    }

    fn rows(validation: &Validation, rows: usize) -> Vec<ValidationBatch> {
        validation.batches(rows).unwrap().collect()
    }

    #[test]
    fn windows_follow_each_other_and_the_last_is_shorter() {
        let (_directory, tokenizer) = words(WORDS);
        // Tokens: 0 1 9 1 9.
        let split = split(&["a b", "b"], &tokenizer.unwrap());
        let validation = Validation::new(split, 2, None).unwrap();
        let batches = rows(&validation, 2);
        assert_eq!(
            batches,
            [
                ValidationBatch {
                    rows: 2,
                    tokens: vec![9, 0, 1, 1, 9, 1],
                    targets: vec![2, 2],
                },
                ValidationBatch {
                    rows: 1,
                    tokens: vec![1, 9, 9],
                    targets: vec![1],
                },
            ]
        );
        assert_eq!(validation.targets(), 5);
        assert_eq!(validation.bytes(), 4);
    }

    #[rstest]
    fn every_token_is_a_target_once(#[values(1, 2, 3, 7, 11, 12, 13, 50)] seq: usize) {
        let split = split(&["hello", "wörld"], &Tokenizer::Byte);
        let tokens = split.split.tokens.clone();
        let validation = Validation::new(split, seq, None).unwrap();
        let mut targets = Vec::new();
        for batch in rows(&validation, 3) {
            for (row, &count) in batch.tokens.chunks(seq + 1).zip(&batch.targets) {
                targets.extend_from_slice(&row[1..=count]);
            }
        }
        assert_eq!(targets, tokens.window(0, tokens.len()));
        assert_eq!(validation.targets(), 13);
        assert_eq!(validation.bytes(), 11);
        assert_eq!(validation.text(), "hellowörld".as_bytes());
    }

    #[test]
    fn capped_windows_are_spread_evenly_and_bring_their_own_text() {
        // Ten tokens per letter with the end of document, so that window k is document k.
        let documents: Vec<String> = ('a'..='j').map(|c| c.to_string().repeat(9)).collect();
        let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
        let validation = Validation::new(split(&texts, &Tokenizer::Byte), 10, Some(4)).unwrap();
        assert_eq!(validation.windows(), 4);
        // floor(k * 10 / 4) = 0, 2, 5, 7.
        assert_eq!(validation.text(), b"aaaaaaaaacccccccccfffffffffhhhhhhhhh");
        assert_eq!(validation.bytes(), 36);
        assert_eq!(validation.targets(), 40);
    }

    #[test]
    fn a_cap_above_the_number_of_windows_takes_them_all() {
        let validation = Validation::new(split(&["abc"], &Tokenizer::Byte), 2, Some(9)).unwrap();
        assert_eq!((validation.windows(), validation.targets()), (2, 4));
    }

    #[rstest]
    #[case(0, None)]
    #[case(1, Some(0))]
    fn zero_is_refused(#[case] seq: usize, #[case] cap: Option<usize>) {
        let error = Validation::new(split(&["abc"], &Tokenizer::Byte), seq, cap).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { .. }), "{error}");
    }

    #[test]
    fn a_split_of_one_token_is_refused() {
        let error = Validation::new(split(&[""], &Tokenizer::Byte), 4, None).unwrap_err();
        assert!(
            matches!(
                error,
                DataError::TooShort {
                    split: "validation",
                    tokens: 1,
                    needed: 2
                }
            ),
            "{error}"
        );
    }
}
