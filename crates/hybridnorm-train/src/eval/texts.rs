//! What texts cost a model: each document by itself, in windows that slide over it.

use hybridnorm_core::FeedForward;
use serde::Serialize;

use super::bootstrap::standard_error;
use super::choices::Figure;
use super::perplexity::Score;
use super::{Examinee, ScoreError};

/// Windows that are gathered before they are computed, for each that is computed at once: those of like length go together.
const GATHERED: usize = 8;

/// The cost of some documents. A document begins behind the token that begins every text, and sees no other; its end is not predicted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct TextScore {
    /// Documents with at least one token.
    pub documents: usize,
    /// Tokens predicted.
    pub tokens: u64,
    /// UTF-8 bytes of the documents.
    pub bytes: u64,
    /// Tokens that a window moves on.
    pub stride: usize,
    /// Cross-entropy in nats per token.
    pub nats_per_token: Figure,
    /// Its exponential.
    pub perplexity: f64,
    /// Cross-entropy in bits per byte.
    pub bits_per_byte: Figure,
}

/// A part of a document.
struct Window {
    document: usize,
    /// What the model sees, and the last token it predicts.
    ids: Vec<u32>,
    /// Tokens at the end that count: those that no window before it has predicted.
    counted: usize,
}

impl<F: FeedForward> Examinee<'_, F> {
    /// Scores `documents`. Each token is predicted once, from as many tokens before it as the window holds: at least `context − stride`,
    /// where the document has them. `None` where there is no token at all.
    ///
    /// # Errors
    /// What `documents` gives, when the tokenizer refuses a text, or the device fails.
    ///
    /// # Panics
    /// When `stride` is 0 or above the context.
    pub fn read<E: From<ScoreError>>(
        &self,
        documents: impl Iterator<Item = Result<String, E>>,
        stride: usize,
    ) -> Result<Option<TextScore>, E> {
        assert!((1..=self.context).contains(&stride), "a stride of {stride}");
        let (mut scores, mut waiting) = (Vec::new(), Vec::new());
        for text in documents {
            let text = text?;
            let ids = self.tokenizer.encode(&text).map_err(ScoreError::from)?;
            if ids.is_empty() {
                continue;
            }
            waiting.extend(self.windows(&ids, stride, scores.len()));
            scores.push(Score {
                nats: 0.0,
                targets: ids.len() as u64,
                bytes: text.len() as u64,
            });
            if waiting.len() >= GATHERED * self.batch {
                self.score(&mut waiting, &mut scores)?;
            }
        }
        self.score(&mut waiting, &mut scores)?;
        Ok((!scores.is_empty()).then(|| summarize(&scores, stride)))
    }

    /// The windows over a document.
    fn windows(&self, ids: &[u32], stride: usize, document: usize) -> Vec<Window> {
        let all = [self.blank, ids].concat();
        let targets = self.blank.len()..all.len();
        let (mut windows, mut done, mut start) = (Vec::new(), targets.start, 0);
        while done < targets.end {
            let end = (start + self.context + 1).min(targets.end);
            windows.push(Window {
                document,
                ids: all[start..end].to_vec(),
                counted: end - done,
            });
            done = end;
            start += stride;
        }
        windows
    }

    fn score(&self, waiting: &mut Vec<Window>, scores: &mut [Score]) -> Result<(), ScoreError> {
        let rows: Vec<Vec<u32>> = waiting
            .iter_mut()
            .map(|window| std::mem::take(&mut window.ids))
            .collect();
        for (window, costs) in waiting.drain(..).zip(self.costs(&rows)?) {
            let counted = &costs[costs.len() - window.counted..];
            let nats = counted.iter().map(|cost| f64::from(*cost)).sum::<f64>();
            scores[window.document].nats += nats;
        }
        Ok(())
    }
}

fn summarize(scores: &[Score], stride: usize) -> TextScore {
    let sum = |documents: &mut dyn Iterator<Item = &Score>| {
        let zero = Score {
            nats: 0.0,
            targets: 0,
            bytes: 0,
        };
        documents.fold(zero, |sum, score| Score {
            nats: sum.nats + score.nats,
            targets: sum.targets + score.targets,
            bytes: sum.bytes + score.bytes,
        })
    };
    let all = sum(&mut scores.iter());
    let figure = |of: fn(&Score) -> f64| Figure {
        value: of(&all),
        standard_error: standard_error(scores.len(), |drawn| {
            of(&sum(&mut drawn.iter().map(|index| &scores[*index])))
        }),
    };
    TextScore {
        documents: scores.len(),
        tokens: all.targets,
        bytes: all.bytes,
        stride,
        nats_per_token: figure(Score::loss),
        perplexity: all.perplexity(),
        bits_per_byte: figure(Score::bits_per_byte),
    }
}

#[cfg(test)]
mod tests {
    use hybridnorm_core::DecoderConfig;
    use hybridnorm_testing::{any_device, apply, every_device};

    use super::*;
    use crate::data::Tokenizer;
    use crate::engine::Stages;
    use burn::tensor::Device;

    fn ok(texts: &[&str]) -> impl Iterator<Item = Result<String, ScoreError>> {
        let texts: Vec<_> = texts.iter().map(|text| Ok((*text).to_string())).collect();
        texts.into_iter()
    }

    /// Every token is predicted once, with as much before it as is promised.
    #[test]
    fn windows_cover_a_document() {
        let device = any_device();
        let model = DecoderConfig::new(257, 8, 2, 1).init(&device).unwrap();
        let examinee = Examinee {
            model: &model,
            tokenizer: &Tokenizer::Byte,
            context: 4,
            start: &[256],
            blank: &[256],
            batch: 2,
            stages: Stages::default(),
            device: &device,
        };
        for (length, stride) in [(1, 2), (4, 4), (5, 4), (9, 4), (9, 1), (10, 3), (11, 2)] {
            let ids: Vec<u32> = (0..length).collect();
            let mut predicted = Vec::new();
            for (index, window) in examinee.windows(&ids, stride, 0).into_iter().enumerate() {
                assert!(window.ids.len() <= 5);
                let first = window.ids.len() - window.counted;
                assert!(index == 0 || first > 4 - stride, "{length}, {stride}");
                predicted.extend_from_slice(&window.ids[first..]);
            }
            assert_eq!(predicted, ids, "{length}, {stride}");
        }
    }

    /// A window that holds all of a document gives what the whole model gives; one after the other or together.
    #[apply(every_device!)]
    fn documents_are_scored_by_themselves(#[case] device: &Device) {
        let model = DecoderConfig::new(257, 16, 2, 2).init(device).unwrap();
        let examinee = |batch| Examinee {
            model: &model,
            tokenizer: &Tokenizer::Byte,
            context: 20,
            start: &[256],
            blank: &[256],
            batch,
            stages: Stages::default(),
            device,
        };
        let read = |batch, texts: &[&str]| examinee(batch).read(ok(texts), 10).unwrap();
        let [a, b] = ["Twelve bytes", "né"].map(|text| read(1, &[text]).unwrap());
        let both = read(3, &["Twelve bytes", "", "né"]).unwrap();
        assert_eq!((both.documents, both.tokens, both.bytes), (2, 15, 15));
        let nats = |score: &TextScore| score.nats_per_token.value * score.tokens as f64;
        assert!((nats(&both) - nats(&a) - nats(&b)).abs() < 1e-4);
        assert!(a.nats_per_token.standard_error.is_none());
        assert!(both.nats_per_token.standard_error.unwrap() > 0.0);
        assert_eq!(read(1, &["", ""]), None);
    }
}
