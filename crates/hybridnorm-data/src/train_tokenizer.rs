//! A byte-level BPE tokenizer from text.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hybridnorm_tokenizer::END_OF_DOCUMENT_NAMES;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, TokenizerBuilder};

use super::shards::write_whole;
use super::split::place;
use super::{DataError, Files, Reading, Record, Records, Tokenizer};

/// One id per byte, and the end of a document.
const SMALLEST_VOCAB: usize = 257;
const LARGEST_VOCAB: usize = 1 << 20;
/// Pairs that come once are no regularity.
const MIN_FREQUENCY: u64 = 2;

/// What to learn a tokenizer from.
#[derive(Debug, Clone)]
pub struct TokenizerTraining {
    /// Files, directories and patterns: [`Files::find`].
    pub inputs: Vec<PathBuf>,
    /// Ids it may have, 257 to 1,048,576. Fewer come of it when the text has too few pairs that repeat.
    pub vocab: usize,
    /// The share of documents to learn from, by the hash of their text; 1 is all. The documents that a split holds out
    /// are the last to come in.
    pub sample: f64,
    /// UTF-8 bytes that a document may have.
    pub max_document_bytes: usize,
}

impl TokenizerTraining {
    /// Learns the merges, writes `tokenizer.json` to `out` and reads it back. `report` hears of every text.
    ///
    /// Documents are read one at a time; what stays in memory are the distinct words with their counts, which a huge
    /// corpus has many of: `sample` then. The same text gives the same file. `<|endoftext|>` is id 0, the bytes follow.
    /// Words are cut as GPT-2 cuts them, and nothing is normalised, so that decoding gives back every byte.
    ///
    /// # Errors
    ///
    /// An input cannot be found or read, a field is out of range, there is no text, or `out` cannot be written.
    pub fn run(
        &self,
        out: &Path,
        report: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Tokenizer, DataError> {
        self.check()?;
        let files = Files::find(&self.inputs)?.files;
        let reading = Reading {
            skip: 0,
            max_document_bytes: self.max_document_bytes,
            bytes_read: Arc::default(),
        };
        let failed = |message: String| DataError::TrainTokenizer { message };
        let mut trainer = BpeTrainer::builder()
            .vocab_size(self.vocab)
            .min_frequency(MIN_FREQUENCY)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_DOCUMENT_NAMES[0], true)])
            .build();
        let byte_level = ByteLevel::new(false, true, true);
        let mut tokenizer = TokenizerBuilder::new()
            .with_model(BPE::default())
            .with_normalizer(None::<NormalizerWrapper>)
            .with_pre_tokenizer(Some(byte_level))
            .with_post_processor(None::<PostProcessorWrapper>)
            .with_decoder(Some(byte_level))
            .build()
            .map_err(|error| failed(error.to_string()))?;

        // The library takes texts, not results: the first error ends them, and is told afterwards.
        let refused = Mutex::new(None);
        let keep = |error| *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        let mut any = false;
        let texts = files
            .iter()
            .flat_map(|file| match Records::open(file, &reading) {
                Ok(records) => Box::new(records) as Box<dyn Iterator<Item = _> + Send>,
                Err(error) => Box::new(std::iter::once(Err(error))),
            })
            .map_while(|record: Result<Record, DataError>| match record {
                Ok(record) => Some(record.text),
                Err(error) => {
                    keep(error);
                    None
                }
            })
            .filter(|text| {
                self.sample >= 1.0 || place(&blake3::hash(text.as_bytes())) >= 1.0 - self.sample
            })
            .inspect(|text| {
                any |= !text.trim().is_empty();
                report(text.len() as u64);
            });
        let trained = tokenizer.train(&mut trainer, texts).map(drop);
        if let Some(error) = refused.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        trained.map_err(|error| failed(error.to_string()))?;
        if !any {
            return Err(DataError::Empty {
                path: self.inputs.first().cloned().unwrap_or_default(),
            });
        }
        let json = tokenizer
            .to_string(true)
            .map_err(|error| failed(error.to_string()))?;
        write_whole(out, json.as_bytes())?;
        Ok(Tokenizer::from_file(out)?)
    }

    fn check(&self) -> Result<(), DataError> {
        let refused = |field, value: String, allowed| {
            Err(DataError::OutOfRange {
                field,
                value,
                allowed,
            })
        };
        if !(SMALLEST_VOCAB..=LARGEST_VOCAB).contains(&self.vocab) {
            let allowed = "257 (every byte and the end of a document) to 1048576";
            return refused("vocab", self.vocab.to_string(), allowed);
        }
        if !(self.sample > 0.0 && self.sample <= 1.0) {
            return refused("sample", self.sample.to_string(), "above 0, and at most 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn training(dir: &Path, vocab: usize) -> TokenizerTraining {
        TokenizerTraining {
            inputs: vec![dir.join("in")],
            vocab,
            sample: 1.0,
            max_document_bytes: 1 << 20,
        }
    }

    fn corpus() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("in")).unwrap();
        let lines: String = (0..300)
            .map(|n| {
                format!(
                    "{{\"text\": \"the wörd number {} comes {} times\"}}\n",
                    n * 7 % 90,
                    n
                )
            })
            .collect();
        std::fs::write(dir.path().join("in/a.jsonl"), lines).unwrap();
        dir
    }

    #[test]
    fn the_same_text_gives_the_same_file_and_every_byte_comes_back() {
        let dir = corpus();
        let [first, second] = ["a.json", "b.json"].map(|name| dir.path().join(name));
        let mut bytes = 0;
        let tokenizer = training(dir.path(), 300)
            .run(&first, &mut |read| bytes += read)
            .unwrap();
        training(dir.path(), 300).run(&second, &mut |_| {}).unwrap();
        assert!(bytes > 6000, "{bytes}");
        assert_eq!(
            std::fs::read(&first).unwrap(),
            std::fs::read(&second).unwrap()
        );
        assert_eq!(tokenizer.vocab_size(), 300);
        assert_eq!(tokenizer.end_of_document().unwrap(), 0);
        let text = "the wörd \u{1F600} number\t\r\n  <|endoftext|> \0 the";
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.len() < text.len());
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(tokenizer.encode_with_ends(text).unwrap().ids, ids);
    }

    #[test]
    fn a_sample_is_a_part_and_leaves_the_held_out_documents_to_the_last() {
        let dir = corpus();
        let read = |sample| {
            let mut texts = 0;
            let training = TokenizerTraining {
                sample,
                ..training(dir.path(), 300)
            };
            training
                .run(&dir.path().join("t.json"), &mut |_| texts += 1)
                .unwrap();
            texts
        };
        assert_eq!(read(1.0), 300);
        // Binomial: mean 150, deviation 8.7; allow five of them.
        let half: i32 = read(0.5);
        assert!((half - 150).abs() < 44, "{half}");
    }

    #[rstest]
    #[case(256, 1.0, "vocab is 256")]
    #[case(2_000_000, 1.0, "vocab is 2000000")]
    #[case(300, 0.0, "sample is 0")]
    #[case(300, f64::NAN, "sample is NaN")]
    fn a_field_out_of_range_is_refused(
        #[case] vocab: usize,
        #[case] sample: f64,
        #[case] message: &str,
    ) {
        let dir = corpus();
        let training = TokenizerTraining {
            sample,
            ..training(dir.path(), vocab)
        };
        let error = training
            .run(&dir.path().join("t.json"), &mut |_| {})
            .unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }

    #[test]
    fn a_damaged_line_is_told_and_nothing_is_written() {
        let dir = corpus();
        std::fs::write(dir.path().join("in/b.jsonl"), "{\"text\": \"a\"}\n{").unwrap();
        let out = dir.path().join("t.json");
        let error = training(dir.path(), 300)
            .run(&out, &mut |_| {})
            .unwrap_err();
        assert!(error.to_string().contains("b.jsonl:2"), "{error}");
        assert!(!out.exists());
    }
}
