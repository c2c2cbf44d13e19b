//! Tokens wherever they lie: in memory, in shards, in files of another program.

use std::fmt;

use super::DataError;

/// A sequence of token ids that is read by position.
///
/// It is read as a ring: [`TokenSource::window`] wraps past the end. Since every document is followed by the
/// end-of-document id, what stands before the first token is then an end-of-document id, which is exactly
/// the context a first token should have.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// Number of tokens.
    fn tokens(&self) -> u64;

    /// Fills `ids` with the tokens from `start` on, all of which lie before the end.
    ///
    /// # Errors
    ///
    /// The tokens cannot be read.
    ///
    /// # Panics
    ///
    /// May panic when the range passes the end, which is a mistake of the caller.
    fn read(&self, start: u64, ids: &mut [u32]) -> Result<(), DataError>;

    /// `count` ids from `start` on, wrapping past the end to the beginning. Empty when the source is.
    ///
    /// # Errors
    ///
    /// As [`TokenSource::read`].
    fn window(&self, start: u64, count: usize) -> Result<Vec<u32>, DataError> {
        let length = self.tokens();
        if length == 0 {
            return Ok(Vec::new());
        }
        let mut ids = vec![0; count];
        let mut position = start % length;
        let mut filled = 0;
        while filled < count {
            let run = (length - position).min((count - filled) as u64) as usize;
            self.read(position, &mut ids[filled..filled + run])?;
            filled += run;
            position = 0;
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::super::TokenStore;
    use super::*;

    #[test]
    fn a_window_wraps_as_often_as_it_must() {
        let store = TokenStore::U16(vec![0, 1, 2]);
        let window = |start, count| store.window(start, count).unwrap();
        assert_eq!(window(1, 2), [1, 2]);
        assert_eq!(window(2, 3), [2, 0, 1]);
        assert_eq!(window(5, 7), [2, 0, 1, 2, 0, 1, 2]);
        assert_eq!(
            TokenStore::default().window(3, 2).unwrap(),
            Vec::<u32>::new()
        );
    }
}
