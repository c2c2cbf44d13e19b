//! Values as JSON gives them back, and results as files of it.
//!
//! serde_json's reader is off by a bit in about one number of eight that has seventeen digits; its feature `float_roundtrip` would be another build of
//! Burn. What is written to go on from is therefore text where it must be exact ([`GuardState`](crate::guard::GuardState)), and else kept in
//! memory as it will be read: a run that was cut off then decides as one that was not.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aside;
use crate::error::Error;

/// Writes `value` to `path` for people and programs, whole or not at all.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn save(value: &impl Serialize, path: &Path) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| Error::io("write", path)(error.into()))?;
    text.push('\n');
    aside::write(path, text).map_err(Error::io("write", path))
}

/// `value` as it is read from `text`, which was written of it; `value` itself where it cannot be read.
pub(crate) fn as_read<T: DeserializeOwned>(value: T, text: &[u8]) -> T {
    serde_json::from_slice(text).unwrap_or(value)
}

/// Numbers that serde_json reads one bit off, for tests.
#[cfg(test)]
pub(crate) const MISREAD: [f64; 3] = [1.9817403483677638, 0.11616315029947177, 3.3503119026502914];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_is_read() {
        for number in MISREAD {
            let text = serde_json::to_vec(&number).unwrap();
            let read: f64 = serde_json::from_slice(&text).unwrap();
            assert_ne!(read, number, "not a number to test with");
            assert_eq!(as_read(number, &text), read);
        }
        assert_eq!(as_read(2.5, b"null"), 2.5);
    }
}
