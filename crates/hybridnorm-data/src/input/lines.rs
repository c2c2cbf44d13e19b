//! Lines of a stream, none longer than is allowed.

use std::io::BufRead;
use std::path::PathBuf;

use super::{BYTE_ORDER_MARK, DataError};

/// The lines of a file. Unlike `BufRead::lines` it stops reading a line that passes the limit, so that a file
/// without line ends, or one that unpacks to petabytes of the same byte, costs no more memory than a line may have.
pub(super) struct Lines {
    source: Box<dyn BufRead + Send>,
    path: PathBuf,
    max_bytes: usize,
    next: u64,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn new(source: Box<dyn BufRead + Send>, path: PathBuf, max_bytes: usize) -> Self {
        Self {
            source,
            path,
            max_bytes,
            next: 0,
            line: Vec::new(),
        }
    }

    /// The number from 0 and the bytes of the next line, without its end. Nothing at the end of the file.
    pub(super) fn next_line(&mut self) -> Result<Option<(u64, &[u8])>, DataError> {
        self.line.clear();
        let mut ended = false;
        let mut any = false;
        while !ended {
            let chunk = self
                .source
                .fill_buf()
                .map_err(|source| DataError::read(&self.path, source))?;
            if chunk.is_empty() {
                break;
            }
            any = true;
            let end = memchr::memchr(b'\n', chunk);
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > self.max_bytes {
                return Err(DataError::TooLong {
                    path: self.path.clone(),
                    line: self.next + 1,
                    limit: self.max_bytes,
                });
            }
            self.line.extend_from_slice(part);
            let used = end.map_or(part.len(), |end| end + 1);
            ended = end.is_some();
            self.source.consume(used);
        }
        if !any {
            return Ok(None);
        }
        let number = self.next;
        self.next += 1;
        let start = match number {
            0 if self.line.starts_with(BYTE_ORDER_MARK) => BYTE_ORDER_MARK.len(),
            _ => 0,
        };
        Ok(Some((number, &self.line[start..])))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};

    use super::*;

    fn all(bytes: &'static [u8], buffer: usize, limit: usize) -> Result<Vec<Vec<u8>>, DataError> {
        let source = BufReader::with_capacity(buffer, Cursor::new(bytes));
        let mut lines = Lines::new(Box::new(source), "f".into(), limit);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next_line()? {
            assert_eq!(number, found.len() as u64);
            found.push(line.to_vec());
        }
        Ok(found)
    }

    #[test]
    fn lines_are_those_of_the_text_whatever_the_buffer() {
        for buffer in [1, 2, 3, 100] {
            let lines = all("\u{feff}ab\n\ncd\r\ne".as_bytes(), buffer, 8).unwrap();
            assert_eq!(lines, [&b"ab"[..], b"", b"cd\r", b"e"]);
            assert_eq!(all(b"a\n", buffer, 8).unwrap(), [b"a"]);
            assert!(all(b"", buffer, 8).unwrap().is_empty());
        }
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_not_read_to_its_end() {
        assert_eq!(all(b"abcd\nabcd", 3, 4).unwrap().len(), 2);
        let error = all(b"abcd\nabcde\n", 3, 4).unwrap_err();
        assert!(
            matches!(error, DataError::TooLong { line: 2, .. }),
            "{error}"
        );
        let endless = BufReader::new(std::io::repeat(b'x').take(u64::MAX));
        let mut lines = Lines::new(Box::new(endless), "f".into(), 1 << 20);
        assert!(lines.next_line().is_err());
    }
}
