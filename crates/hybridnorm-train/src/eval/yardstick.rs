//! What a model's bits per byte are to be held against: the same text under models that cost nothing.

use std::io;

use thiserror::Error;

/// Different bytes.
const SYMBOLS: usize = 256;
/// zstd's highest level short of `--ultra`.
const ZSTD_LEVEL: i32 = 19;
/// A window of 128 MiB, zstd's largest that every decoder accepts (`--long=27`).
const ZSTD_WINDOW_LOG: u32 = 27;
/// The smoothing constants tried are `2^0`, `2^-1`, … `2^-SMALLEST_SMOOTHING`.
const SMALLEST_SMOOTHING: i32 = 12;

/// Why a yardstick cannot be measured.
#[derive(Debug, Error)]
pub enum YardstickError {
    /// There is no byte to score.
    #[error("the validation text is empty: bits per byte needs at least one byte")]
    EmptyValidation,
    /// The compressor failed.
    #[error("zstd cannot compress the validation text: {0}")]
    Zstd(#[from] io::Error),
}

/// Bits per byte of the validation text under three models, lower being better.
///
/// A language model scored on the same text should pass all three: `unigram` when it has learnt which bytes are
/// common, `bigram` when it uses one byte of context, `zstd` when it uses much more than that. None of them pays for
/// the ends of documents, which the language model's figure does include.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yardsticks {
    /// Each byte by its share of the training text.
    pub unigram: f64,
    /// Each byte by its share among those that follow the byte before it in the training text.
    pub bigram: f64,
}

impl Yardsticks {
    /// Fits the byte models to `train` and scores both on `validation`.
    ///
    /// `validation` is the text behind the tokens the language model is scored on:
    /// [`Validation::text`](crate::data::Validation::text). `train` is read as one text, piece after piece; so is
    /// `validation`, whose first byte, having none before it, is left to the unigram in both byte models.
    ///
    /// Both byte models add a constant to every count, so that no byte is impossible. Of `1, 1/2, … 1/4096`, each
    /// takes the constant under which the training text is most likely when every byte is predicted from all the
    /// others (leave-one-out), the larger of equals. The validation text has no say in it.
    ///
    /// # Errors
    ///
    /// `validation` is empty.
    pub fn measure<T: AsRef<[u8]>>(train: &[T], validation: &[u8]) -> Result<Self, YardstickError> {
        let Some((&first, rest)) = validation.split_first() else {
            return Err(YardstickError::EmptyValidation);
        };
        let mut unigram = Counts::new(1);
        let mut bigram = Counts::new(SYMBOLS);
        let mut before = None;
        for &byte in train.iter().flat_map(|piece| piece.as_ref()) {
            unigram.add(0, byte);
            if let Some(before) = before.replace(byte) {
                bigram.add(usize::from(before), byte);
            }
        }
        let (unigram, bigram) = (unigram.bits(), bigram.bits());
        let one = |byte: u8| unigram[usize::from(byte)];
        let two = |pair: &[u8]| bigram[usize::from(pair[0]) * SYMBOLS + usize::from(pair[1])];
        let bytes = validation.len() as f64;
        let first = one(first);
        Ok(Self {
            unigram: (first + rest.iter().map(|&byte| one(byte)).sum::<f64>()) / bytes,
            bigram: (first + validation.windows(2).map(two).sum::<f64>()) / bytes,
        })
    }
}

/// How often each byte follows each context: `[contexts, 256]` in row-major order.
struct Counts {
    table: Vec<u64>,
}

impl Counts {
    fn new(contexts: usize) -> Self {
        Self {
            table: vec![0; contexts * SYMBOLS],
        }
    }

    fn add(&mut self, context: usize, byte: u8) {
        self.table[context * SYMBOLS + usize::from(byte)] += 1;
    }

    /// The cost of every byte in every context, in bits.
    fn bits(&self) -> Vec<f64> {
        let smoothing = self.smoothing();
        self.table
            .chunks(SYMBOLS)
            .flat_map(|row| {
                let total = row.iter().sum::<u64>() as f64 + smoothing * SYMBOLS as f64;
                row.iter()
                    .map(move |&count| -((count as f64 + smoothing) / total).log2())
            })
            .collect()
    }

    fn smoothing(&self) -> f64 {
        let mut best = (1.0, self.leave_one_out(1.0));
        for exponent in 1..=SMALLEST_SMOOTHING {
            let smoothing = 2f64.powi(-exponent);
            let likelihood = self.leave_one_out(smoothing);
            if likelihood > best.1 {
                best = (smoothing, likelihood);
            }
        }
        best.0
    }

    /// Log-likelihood of the counted bytes, in nats, each predicted from the counts without itself.
    fn leave_one_out(&self, smoothing: f64) -> f64 {
        self.table
            .chunks(SYMBOLS)
            .map(|row| {
                let others = row.iter().sum::<u64>() as f64 - 1.0 + smoothing * SYMBOLS as f64;
                row.iter()
                    .filter(|&&count| count > 0)
                    .map(|&count| {
                        let count = count as f64;
                        count * ((count - 1.0 + smoothing) / others).ln()
                    })
                    .sum::<f64>()
            })
            .sum()
    }
}

/// Bits per byte of `text` under zstd at level 19 with a 128 MiB window and long-distance matching, given `text` alone.
///
/// It falls as the text grows, there being more to refer back to, and rises when the text is cut to pieces. Give it
/// whole documents, and compare it between runs only on the same text.
///
/// # Errors
///
/// `text` is empty, or the compressor fails.
pub fn zstd_alone(text: &[u8]) -> Result<f64, YardstickError> {
    zstd_primed::<&[u8]>(&[], text)
}

/// Bits per byte of `validation` under zstd as in [`zstd_alone`], which is now also given the training text, up
/// to the last 128 MiB of it, as if it had just compressed that.
///
/// This is the harder mark, since the language model has seen the training text too. It is not part of
/// [`Yardsticks`] because it takes seconds where those take a fraction of one: zstd has to index all of `train`.
///
/// # Errors
///
/// `validation` is empty, or the compressor fails.
pub fn zstd_primed<T: AsRef<[u8]>>(train: &[T], validation: &[u8]) -> Result<f64, YardstickError> {
    if validation.is_empty() {
        return Err(YardstickError::EmptyValidation);
    }
    let train: Vec<&[u8]> = train.iter().map(AsRef::as_ref).collect();
    let train = train.concat();
    let seen = &train[train.len().saturating_sub(1 << ZSTD_WINDOW_LOG)..];
    let length = compress(seen, validation)?.len();
    Ok(8.0 * length as f64 / validation.len() as f64)
}

/// `text` as one zstd frame that refers back to `prefix`.
fn compress(prefix: &[u8], text: &[u8]) -> io::Result<Vec<u8>> {
    let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL)?;
    compressor.window_log(ZSTD_WINDOW_LOG)?;
    compressor.long_distance_matching(true)?;
    if !prefix.is_empty() {
        compressor
            .context_mut()
            .ref_prefix(prefix)
            .map_err(|code| io::Error::other(zstd::zstd_safe::get_error_name(code)))?;
    }
    compressor.compress(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(value: f64, expected: f64, tolerance: f64) {
        assert!(
            (value - expected).abs() <= tolerance,
            "{value} is not {expected} within {tolerance}"
        );
    }

    /// Bytes without pattern: SplitMix64 from state 1.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        (0..length)
            .map(|_| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                (z >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn uniform_bytes_cost_eight_bits() {
        let uniform: Vec<u8> = (0..=255).collect();
        let yardsticks = Yardsticks::measure(&[&uniform], &uniform).unwrap();
        close(yardsticks.unigram, 8.0, 1e-12);
        // No training text at all leaves every byte equally likely in both models.
        let untrained = Yardsticks::measure::<&[u8]>(&[], &uniform).unwrap();
        close(untrained.unigram, 8.0, 1e-12);
        close(untrained.bigram, 8.0, 1e-12);
    }

    #[test]
    fn unigram_costs_the_entropy_of_a_known_distribution() {
        // Three quarters a, one quarter b: 2 - 0.75 log2 3 = 0.811278 bits.
        let text = b"aaab".repeat(10_000);
        let yardsticks = Yardsticks::measure(&[&text], &text).unwrap();
        close(yardsticks.unigram, 2.0 - 0.75 * 3f64.log2(), 1e-4);
        // With that much text no count is single, and the smallest constant wins.
        let total = 40_000.0 + 256.0 / 4096.0;
        let cost = |count: f64| -((count + 1.0 / 4096.0) / total).log2();
        close(
            yardsticks.unigram,
            0.75 * cost(30_000.0) + 0.25 * cost(10_000.0),
            1e-12,
        );
    }

    #[test]
    fn bigram_sees_that_two_symbols_alternate() {
        let text = b"ab".repeat(5000);
        let yardsticks = Yardsticks::measure(&[&text], &text).unwrap();
        close(yardsticks.unigram, 1.0, 1e-4);
        // 5000 times a → b, 4999 times b → a, and one first byte at one bit.
        let cost = |count: f64| ((count + 256.0 / 4096.0) / (count + 1.0 / 4096.0)).log2();
        let expected =
            (yardsticks.unigram + 5000.0 * cost(5000.0) + 4999.0 * cost(4999.0)) / 10_000.0;
        close(yardsticks.bigram, expected, 1e-12);
        assert!(yardsticks.bigram < 1e-3, "{}", yardsticks.bigram);
    }

    #[test]
    fn smoothing_is_the_leave_one_out_maximum() {
        // Two bytes seen once each: without itself each is 1 unseen of 1 seen, α / (1 + 256 α), which grows with α.
        let mut counts = Counts::new(1);
        counts.add(0, 1);
        counts.add(0, 2);
        close(
            counts.leave_one_out(0.5),
            2.0 * (0.5f64 / 129.0).ln(),
            1e-12,
        );
        close(counts.smoothing(), 1.0, 0.0);
        // The same byte again and again asks for no smoothing at all.
        let mut counts = Counts::new(1);
        (0..10).for_each(|_| counts.add(0, 7));
        close(counts.smoothing(), 1.0 / 4096.0, 0.0);
    }

    #[test]
    fn pieces_of_training_text_are_one_text() {
        let whole = Yardsticks::measure(&["abcabc"], b"cab").unwrap();
        let pieces = Yardsticks::measure(&["ab", "", "cab", "c"], b"cab").unwrap();
        assert_eq!(whole, pieces);
    }

    #[test]
    fn zstd_finds_repeats_and_nothing_in_noise() {
        let noise = noise(1 << 16);
        let once = zstd_alone(&noise).unwrap();
        close(once, 8.0, 0.01);
        let twice = zstd_alone(&noise.repeat(2)).unwrap();
        close(twice, 4.0, 0.01);
        let constant = zstd_alone(&[b'x'; 1 << 16]).unwrap();
        assert!(constant < 0.01, "{constant}");
    }

    #[test]
    fn primed_zstd_refers_back_to_the_training_text() {
        let noise = noise(1 << 16);
        let (train, fresh) = noise.split_at(1 << 15);
        close(zstd_primed(&[train], fresh).unwrap(), 8.0, 0.01);
        // All of it repeats the training text: a frame of at most a few dozen bytes.
        assert!(zstd_primed(&[train], train).unwrap() < 0.01);
        // The frame really decodes to the text when the decoder is given the same prefix.
        let text = [fresh, &train[100..20_000], fresh].concat();
        let frame = compress(train, &text).unwrap();
        let mut decoder = zstd::zstd_safe::DCtx::create();
        decoder.ref_prefix(train).unwrap();
        let mut decoded = Vec::with_capacity(text.len());
        decoder.decompress(&mut decoded, &frame).unwrap();
        assert!(decoded == text);
    }

    #[test]
    fn an_empty_validation_text_is_refused() {
        let error = Yardsticks::measure(&["abc"], b"").unwrap_err();
        assert!(matches!(error, YardstickError::EmptyValidation), "{error}");
        let error = zstd_primed(&["abc"], b"").unwrap_err();
        assert!(matches!(error, YardstickError::EmptyValidation), "{error}");
    }
}
