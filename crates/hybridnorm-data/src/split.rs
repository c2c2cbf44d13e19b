//! Training and validation text, told apart by what the text is and not by where it stands.

use super::{Corpus, DataError};

/// The share that is held out unless the run says otherwise.
pub const VALIDATION_FRACTION: f64 = 0.05;

/// How a corpus was split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SplitRule {
    /// Whole documents are held out, chosen by the hash of their text.
    Documents,
    /// The end of every document is held out, because there are too few to hold out whole ones.
    Tails,
}

/// The text of both sides, borrowed from the corpus and in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextSplit<'a> {
    /// What the model learns from.
    pub train: Vec<&'a str>,
    /// What it is scored on.
    pub validation: Vec<&'a str>,
    /// How the two were told apart.
    pub rule: SplitRule,
}

impl<'a> TextSplit<'a> {
    /// Holds out about `fraction` of `corpus`.
    ///
    /// A document is held out when the first eight bytes of the BLAKE3 hash of its text, read as a number in 0..1,
    /// lie below `fraction`. The choice therefore needs no seed, does not move when documents are added or renamed,
    /// and puts identical texts on the same side. When chance leaves one side empty, the document with the smallest
    /// hash is held out, or the one with the largest kept.
    ///
    /// When `fraction` of the documents is fewer than two of them (a single file, say, or under 40 documents at
    /// 5 %), whole documents are too coarse, and the last `fraction` of the bytes of each is held out instead, cut
    /// between two characters.
    ///
    /// # Errors
    ///
    /// `fraction` is not between 0 and 1, or one side would be empty.
    pub fn new(corpus: &'a Corpus, fraction: f64) -> Result<Self, DataError> {
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(DataError::OutOfRange {
                field: "validation fraction",
                value: fraction.to_string(),
                allowed: "a number above 0 and below 1",
            });
        }
        let texts: Vec<&str> = corpus.documents.iter().map(|d| d.text.as_str()).collect();
        let split = if texts.len() as f64 * fraction < 2.0 {
            Self::by_tails(&texts, fraction)
        } else {
            Self::by_documents(&texts, fraction)
        };
        if split.train.is_empty() || split.validation.is_empty() {
            return Err(DataError::CannotSplit {
                fraction,
                documents: texts.len(),
                bytes: corpus.bytes,
            });
        }
        Ok(split)
    }

    fn by_documents(texts: &[&'a str], fraction: f64) -> Self {
        let places: Vec<f64> = texts
            .iter()
            .map(|text| place(&blake3::hash(text.as_bytes())))
            .collect();
        let smallest = places.iter().copied().fold(1.0, f64::min);
        let largest = places.iter().copied().fold(0.0, f64::max);
        let held_out = |place: f64| (place < fraction || place == smallest) && place != largest;
        let side = |validation: bool| {
            texts
                .iter()
                .zip(&places)
                .filter(|&(_, &place)| held_out(place) == validation)
                .map(|(&text, _)| text)
                .collect()
        };
        Self {
            train: side(false),
            validation: side(true),
            rule: SplitRule::Documents,
        }
    }

    fn by_tails(texts: &[&'a str], fraction: f64) -> Self {
        let (mut train, mut validation) = (Vec::new(), Vec::new());
        for text in texts {
            let held_out = (text.len() as f64 * fraction).round() as usize;
            let (head, tail) = text.split_at(text.floor_char_boundary(text.len() - held_out));
            train.extend((!head.is_empty()).then_some(head));
            validation.extend((!tail.is_empty()).then_some(tail));
        }
        Self {
            train,
            validation,
            rule: SplitRule::Tails,
        }
    }
}

/// The hash of a text as a number in 0..1.
pub(super) fn place(hash: &blake3::Hash) -> f64 {
    let (head, _) = hash.as_bytes().split_at(8);
    let number = head
        .iter()
        .fold(0u64, |number, &byte| number << 8 | u64::from(byte));
    number as f64 / 2f64.powi(64)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::super::Document;
    use super::*;

    fn corpus(texts: &[&str]) -> Corpus {
        let documents = texts
            .iter()
            .enumerate()
            .map(|(index, text)| Document {
                name: index.to_string(),
                text: (*text).to_owned(),
            })
            .collect();
        Corpus::assemble(documents, String::new(), Vec::new(), Vec::new())
    }

    fn numbered(count: usize) -> Corpus {
        let texts: Vec<_> = (0..count).map(|n| format!("document {n}")).collect();
        corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn about_the_fraction_is_held_out_and_nothing_is_lost() {
        let corpus = numbered(4000);
        let split = TextSplit::new(&corpus, 0.05).unwrap();
        assert_eq!(split.rule, SplitRule::Documents);
        // Binomial: mean 200, deviation 13.8; allow five of them.
        assert!(
            split.validation.len().abs_diff(200) < 69,
            "{}",
            split.validation.len()
        );
        let mut all = [split.train, split.validation].concat();
        all.sort_unstable();
        let mut expected: Vec<_> = corpus.documents.iter().map(|d| d.text.as_str()).collect();
        expected.sort_unstable();
        assert_eq!(all, expected);
    }

    #[test]
    fn a_document_keeps_its_side_when_others_come_or_names_change() {
        let (small, large) = (numbered(1000), numbered(2000));
        let small = TextSplit::new(&small, 0.05).unwrap();
        let large = TextSplit::new(&large, 0.05).unwrap();
        assert!(
            small
                .validation
                .iter()
                .all(|text| large.validation.contains(text))
        );
        assert!(small.train.iter().all(|text| large.train.contains(text)));
    }

    #[test]
    fn both_sides_have_a_document_whatever_the_hashes() {
        // At 0.01 of 200 documents one side is empty by chance for about one corpus in seven.
        let mut forced = 0;
        for seed in 0..60 {
            let texts: Vec<_> = (0..200).map(|n| format!("{seed}/{n}")).collect();
            let corpus = corpus(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            forced += usize::from(
                texts
                    .iter()
                    .all(|text| place(&blake3::hash(text.as_bytes())) >= 0.01),
            );
            let split = TextSplit::new(&corpus, 0.01).unwrap();
            assert!(!split.validation.is_empty() && !split.train.is_empty());
        }
        assert!(forced > 0, "the test never met the case it is about");
    }

    #[rstest]
    #[case::ascii("0123456789abcdefghij", 0.05, "0123456789abcdefghi", "j")]
    #[case::between_characters("aaaaaaé", 0.1, "aaaaaa", "é")]
    fn few_documents_give_their_tails(
        #[case] text: &str,
        #[case] fraction: f64,
        #[case] train: &str,
        #[case] validation: &str,
    ) {
        let corpus = corpus(&[text]);
        let split = TextSplit::new(&corpus, fraction).unwrap();
        assert_eq!(split.rule, SplitRule::Tails);
        assert_eq!(split.train, [train]);
        assert_eq!(split.validation, [validation]);
    }

    #[rstest]
    #[case(0.0)]
    #[case(1.0)]
    #[case(f64::NAN)]
    fn a_fraction_outside_zero_and_one_is_refused(#[case] fraction: f64) {
        let error = TextSplit::new(&numbered(3), fraction).unwrap_err();
        assert!(matches!(error, DataError::OutOfRange { .. }), "{error}");
    }

    #[test]
    fn a_corpus_that_cannot_be_split_is_refused() {
        let error = TextSplit::new(&corpus(&["a"]), 0.05).unwrap_err();
        assert!(matches!(error, DataError::CannotSplit { .. }), "{error}");
        // Identical texts stay together, so there is nothing to put on the other side.
        let error = TextSplit::new(&corpus(&["a"; 50]), 0.05).unwrap_err();
        assert!(matches!(error, DataError::CannotSplit { .. }), "{error}");
    }
}
