//! Validation windows: every held-out token a target exactly once, with its bytes accounted for.

use std::ops::Range;

use super::batches::require_positive;
use super::{DataError, TokenSource, ValidationSplit};

/// Held-out tokens with the text behind each.
pub trait HeldOut {
    /// The tokens: each document's, followed by the end-of-document id.
    fn tokens(&self) -> &dyn TokenSource;

    /// The bytes that the tokens at the positions `range` stand for.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    fn text(&self, range: Range<u64>) -> Result<Vec<u8>, DataError>;
}

impl HeldOut for ValidationSplit {
    fn tokens(&self) -> &dyn TokenSource {
        &*self.split.tokens
    }

    fn text(&self, range: Range<u64>) -> Result<Vec<u8>, DataError> {
        let before = |position: u64| match position {
            0 => 0,
            _ => self.ends[position as usize - 1],
        };
        Ok(self.text[before(range.start)..before(range.end)].to_vec())
    }
}

/// The held-out tokens cut into consecutive windows of `seq` targets, the last of which may be shorter.
///
/// The first input of a window is the token before its first target; before the first token of all stands the
/// end-of-document id. When windows are capped, those taken are spread evenly over the split, and
/// [`Validation::text`] and [`Validation::bytes`] speak of these windows only, so that whatever is scored on that
/// text is scored on what the model is scored on. The windows taken, and no others, are held in memory.
///
/// Bits per byte is the sum of the cross-entropy over all targets in nats, divided by `ln 2` and by
/// [`Validation::bytes`]. End-of-document targets count in the sum and stand for 0 bytes: a model pays for saying
/// where a document ends, which a compressor of the bare text does not.
#[derive(Debug, Clone)]
pub struct Validation {
    seq: usize,
    windows: Vec<Window>,
}

#[derive(Debug, Clone)]
struct Window {
    /// The first input, then the targets.
    ids: Vec<u32>,
    /// The bytes behind the targets.
    text: Vec<u8>,
}

impl Window {
    fn targets(&self) -> usize {
        self.ids.len() - 1
    }
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
    /// Windows of `seq` targets over `held_out`; at most `max_windows` of them when given, evenly spaced.
    ///
    /// # Errors
    ///
    /// `seq` or `max_windows` is 0, `held_out` has fewer than two tokens, or it cannot be read.
    pub fn new(
        held_out: &dyn HeldOut,
        seq: usize,
        max_windows: Option<usize>,
    ) -> Result<Self, DataError> {
        require_positive("seq", seq)?;
        require_positive("maximum of validation windows", max_windows.unwrap_or(1))?;
        let source = held_out.tokens();
        let tokens = source.tokens();
        if tokens < 2 {
            return Err(DataError::TooShort {
                split: "validation",
                tokens,
                needed: 2,
            });
        }
        let total = tokens.div_ceil(seq as u64);
        let count = max_windows.map_or(total, |most| total.min(most as u64));
        let window = |k: u64| {
            // `u128`, since the product of two lengths need not fit.
            let index = (u128::from(k) * u128::from(total) / u128::from(count)) as u64;
            let start = index * seq as u64;
            let targets = start..start.saturating_add(seq as u64).min(tokens);
            // The token before the first target; the ring puts the last end-of-document id before token 0.
            let length = (targets.end - targets.start) as usize;
            Ok(Window {
                ids: source.window(start + tokens - 1, length + 1)?,
                text: held_out.text(targets)?,
            })
        };
        Ok(Self {
            seq,
            windows: (0..count).map(window).collect::<Result<_, DataError>>()?,
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
        self.windows.iter().map(|w| w.targets() as u64).sum()
    }

    /// UTF-8 bytes behind the targets of all windows.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.windows.iter().map(|w| w.text.len() as u64).sum()
    }

    /// The bytes behind the targets of all windows, in order. Where windows are capped and a token holds part of a
    /// character, a cut may fall inside the character.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let texts: Vec<&[u8]> = self.windows.iter().map(|w| w.text.as_slice()).collect();
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

    fn batch(&self, windows: &[Window]) -> ValidationBatch {
        let mut batch = ValidationBatch {
            rows: windows.len(),
            tokens: Vec::with_capacity(windows.len() * (self.seq + 1)),
            targets: Vec::with_capacity(windows.len()),
        };
        for window in windows {
            let padding = self.seq - window.targets();
            let last = window.ids.last().copied();
            batch.tokens.extend_from_slice(&window.ids);
            batch.tokens.extend(last.into_iter().cycle().take(padding));
            batch.targets.push(window.targets());
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::tokenizer_of_words;
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
        // Tokens: 0 1 9 1 9.
        let split = split(&["a b", "b"], &tokenizer_of_words());
        let validation = Validation::new(&split, 2, None).unwrap();
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
        let validation = Validation::new(&split, seq, None).unwrap();
        let mut targets = Vec::new();
        for batch in rows(&validation, 3) {
            for (row, &count) in batch.tokens.chunks(seq + 1).zip(&batch.targets) {
                targets.extend_from_slice(&row[1..=count]);
            }
        }
        assert_eq!(targets, tokens.window(0, 13).unwrap());
        assert_eq!(validation.targets(), 13);
        assert_eq!(validation.bytes(), 11);
        assert_eq!(validation.text(), "hellowörld".as_bytes());
    }

    #[test]
    fn capped_windows_are_spread_evenly_and_bring_their_own_text() {
        // Ten tokens per letter with the end of document, so that window k is document k.
        let documents: Vec<String> = ('a'..='j').map(|c| c.to_string().repeat(9)).collect();
        let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
        let validation = Validation::new(&split(&texts, &Tokenizer::Byte), 10, Some(4)).unwrap();
        assert_eq!(validation.windows(), 4);
        // floor(k * 10 / 4) = 0, 2, 5, 7.
        assert_eq!(validation.text(), b"aaaaaaaaacccccccccfffffffffhhhhhhhhh");
        assert_eq!(validation.bytes(), 36);
        assert_eq!(validation.targets(), 40);
    }

    #[test]
    fn a_cap_above_the_number_of_windows_takes_them_all() {
        let validation = Validation::new(&split(&["abc"], &Tokenizer::Byte), 2, Some(9)).unwrap();
        assert_eq!((validation.windows(), validation.targets()), (2, 4));
    }

    #[rstest]
    #[case(0, None)]
    #[case(1, Some(0))]
    fn zero_is_refused(#[case] seq: usize, #[case] cap: Option<usize>) {
        let error = Validation::new(&split(&["abc"], &Tokenizer::Byte), seq, cap).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { .. }), "{error}");
    }

    #[test]
    fn a_split_of_one_token_is_refused() {
        let error = Validation::new(&split(&[""], &Tokenizer::Byte), 4, None).unwrap_err();
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
