//! Token ids in memory, two bytes each where the vocabulary allows it.

use super::{DataError, TokenSource};

/// A sequence of token ids, kept as `u16` until an id needs more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenStore {
    /// Every id is below 65536.
    U16(Vec<u16>),
    /// At least one id may not be.
    U32(Vec<u32>),
}

impl Default for TokenStore {
    fn default() -> Self {
        Self::U16(Vec::new())
    }
}

impl TokenStore {
    /// An empty store, two bytes per token when `vocab_size` is at most 65536 and four otherwise.
    #[must_use]
    pub fn for_vocab(vocab_size: usize) -> Self {
        if vocab_size <= 1 << 16 {
            Self::U16(Vec::new())
        } else {
            Self::U32(Vec::new())
        }
    }

    /// Number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U16(ids) => ids.len(),
            Self::U32(ids) => ids.len(),
        }
    }

    /// Whether there is no token.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `ids`. A store of two bytes per token widens when it meets an id that does not fit.
    pub fn extend(&mut self, ids: &[u32]) {
        if let Self::U16(narrow) = self {
            if ids.iter().all(|&id| id <= u32::from(u16::MAX)) {
                narrow.extend(ids.iter().map(|&id| id as u16));
                return;
            }
            *self = Self::U32(narrow.iter().copied().map(u32::from).collect());
        }
        if let Self::U32(wide) = self {
            wide.extend_from_slice(ids);
        }
    }

    /// Appends all of `other`.
    pub fn append(&mut self, other: &Self) {
        match (self, other) {
            (Self::U16(ids), Self::U16(more)) => ids.extend_from_slice(more),
            (Self::U32(ids), Self::U16(more)) => ids.extend(more.iter().copied().map(u32::from)),
            (store, Self::U32(more)) => store.extend(more),
        }
    }
}

impl TokenSource for TokenStore {
    fn tokens(&self) -> u64 {
        self.len() as u64
    }

    fn read(&self, start: u64, ids: &mut [u32]) -> Result<(), DataError> {
        let range = start as usize..start as usize + ids.len();
        match self {
            Self::U16(all) => {
                for (id, &stored) in ids.iter_mut().zip(&all[range]) {
                    *id = u32::from(stored);
                }
            }
            Self::U32(all) => ids.copy_from_slice(&all[range]),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_follows_the_vocabulary() {
        assert!(matches!(TokenStore::for_vocab(65_536), TokenStore::U16(_)));
        assert!(matches!(TokenStore::for_vocab(65_537), TokenStore::U32(_)));
    }

    #[test]
    fn an_id_that_does_not_fit_widens_the_store_and_loses_nothing() {
        let mut store = TokenStore::for_vocab(257);
        store.extend(&[1, 65_535]);
        assert!(matches!(store, TokenStore::U16(_)));
        store.extend(&[65_536]);
        assert_eq!(store, TokenStore::U32(vec![1, 65_535, 65_536]));
    }

    #[test]
    fn append_joins_every_pair_of_widths() {
        let narrow = TokenStore::U16(vec![1]);
        let wide = TokenStore::U32(vec![70_000]);
        for (first, second, expected) in [
            (&narrow, &narrow, vec![1, 1]),
            (&narrow, &wide, vec![1, 70_000]),
            (&wide, &narrow, vec![70_000, 1]),
            (&wide, &wide, vec![70_000, 70_000]),
        ] {
            let mut store = first.clone();
            store.append(second);
            assert_eq!(store.window(0, 2).unwrap(), expected);
            assert_eq!(store.len(), 2);
        }
    }
}
