//! A file as a stream of its unpacked bytes.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::{Compression, DataError, InputFile};

const BUFFER: usize = 256 * 1024;

/// Opens `file` and unpacks it on the way. `bytes_read` counts what comes from disk.
///
/// A zstd frame may ask for a window of at most 128 MiB, the most that its decoder grants unless told otherwise.
pub(super) fn open(
    file: &InputFile,
    bytes_read: &Arc<AtomicU64>,
) -> Result<Box<dyn BufRead + Send>, DataError> {
    let refused = |source| DataError::read(&file.path, source);
    let counted = Counted {
        inner: File::open(&file.path).map_err(refused)?,
        count: Arc::clone(bytes_read),
    };
    let packed = BufReader::with_capacity(BUFFER, counted);
    Ok(match file.compression {
        Compression::None => Box::new(packed),
        Compression::Gzip => Box::new(BufReader::with_capacity(
            BUFFER,
            MultiGzDecoder::new(packed),
        )),
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(refused)?;
            Box::new(BufReader::with_capacity(BUFFER, decoder))
        }
    })
}

struct Counted {
    inner: File,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
