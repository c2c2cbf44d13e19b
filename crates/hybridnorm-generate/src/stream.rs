//! Ids into text as they come, without cutting a character in two.

use hybridnorm_tokenizer::{Tokenizer, TokenizerError};

/// Turns ids into text as they come. A tokenizer may spread one character over several ids, and may write an id
/// differently after another, so ids are decoded together with those before them and only whole characters given out.
#[derive(Debug)]
pub(super) struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// Ids before this one are out, and are decoded again only as context.
    given: usize,
}

impl<'a> TextStream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            ids: Vec::new(),
            given: 0,
        }
    }

    /// The text that `id` completes, perhaps none.
    pub(super) fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let fresh = self.fresh()?;
        // A character has at most four bytes: what is not one after four more ids never will be.
        if fresh.ends_with('\u{FFFD}') && self.ids.len() - self.given < 4 {
            return Ok(String::new());
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(fresh)
    }

    /// What is still held back.
    pub(super) fn finish(&self) -> Result<String, TokenizerError> {
        self.fresh()
    }

    fn fresh(&self) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(&self.ids[..self.given])?;
        let all = self.tokenizer.decode(&self.ids)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_never_cut() {
        let mut stream = TextStream::new(&Tokenizer::Byte);
        let pieces: Vec<String> = "aé€😀b"
            .bytes()
            .map(|byte| stream.push(u32::from(byte)).unwrap())
            .collect();
        assert_eq!(pieces.concat(), "aé€😀b");
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')));
        // Bytes that are no character come out as such in the end.
        let pieces: Vec<String> = [0xff, 0xff, 0xff, 0xff, 0x61]
            .map(|id| stream.push(id).unwrap())
            .to_vec();
        assert!(pieces.concat().ends_with('a'));
        stream.push(0xe2).unwrap();
        assert_eq!(stream.finish().unwrap(), "\u{FFFD}");
    }
}
