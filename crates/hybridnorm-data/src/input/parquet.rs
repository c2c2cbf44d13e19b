//! The column `text` of a Parquet file, row by row.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use hybridnorm_tokenizer::guarded;
use parquet::basic::{CompressionCodec, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};

use super::{DataError, InputFile, Reading, Record};

/// The column that is read, as in `.jsonl`.
const COLUMN: &str = "text";
/// Rows decoded at a time. Their values share the memory of their page.
const ROWS: usize = 256;
/// Unpacked bytes that a page may claim. Writers aim at 1 MiB.
const MAX_PAGE_BYTES: u64 = 256 << 20;
/// How pages may be packed. Those of gzip and LZ4 would unpack to as much as they like.
const READ_CODECS: [CompressionCodec; 3] = [
    CompressionCodec::UNCOMPRESSED,
    CompressionCodec::SNAPPY,
    CompressionCodec::ZSTD,
];
/// Bytes at the head of a page in which its claimed size stands.
const HEAD_BYTES: usize = 12;

/// The rows of a file in order.
pub(super) struct Rows {
    path: PathBuf,
    max_bytes: usize,
    reader: SerializedFileReader<Pages>,
    column: usize,
    group: usize,
    /// The row group being read, and how many of its rows are still to come.
    open: Option<(ColumnReaderImpl<ByteArrayType>, u64)>,
    /// Decoded, last first.
    decoded: Vec<ByteArray>,
    next: u64,
}

impl Rows {
    pub(super) fn open(file: &InputFile, reading: &Reading) -> Result<Self, DataError> {
        let pages = Pages {
            file: File::open(&file.path).map_err(|source| DataError::read(&file.path, source))?,
            bytes_read: Arc::clone(&reading.bytes_read),
        };
        let bad = |message| DataError::BadParquet {
            path: file.path.clone(),
            row: 0,
            message,
        };
        let reader = guarded(|| SerializedFileReader::new(pages)).map_err(bad)?;
        let column = text_column(&reader).map_err(bad)?;
        let mut rows = Self {
            path: file.path.clone(),
            max_bytes: reading.max_document_bytes,
            reader,
            column,
            group: 0,
            open: None,
            decoded: Vec::new(),
            next: 0,
        };
        rows.skip(reading.skip)?;
        Ok(rows)
    }

    /// The next row.
    pub(super) fn read(&mut self) -> Result<Option<Record>, DataError> {
        while self.decoded.is_empty() {
            if !self.advance()? {
                return Ok(None);
            }
            let decoded = guarded(|| self.decode());
            self.decoded = decoded.map_err(|message| self.bad(message))?;
        }
        let value = self.decoded.pop().unwrap_or_default();
        let number = self.next;
        self.next += 1;
        if value.len() > self.max_bytes {
            return Err(DataError::TooLong {
                path: self.path.clone(),
                line: number + 1,
                limit: self.max_bytes,
            });
        }
        match std::str::from_utf8(value.data()) {
            Ok(text) => Ok(Some(Record {
                number,
                text: text.to_owned(),
            })),
            Err(error) => {
                let message = format!("`{COLUMN}` is not UTF-8 at byte {}", error.valid_up_to());
                self.next = number;
                Err(self.bad(message))
            }
        }
    }

    /// Passes over `count` rows, whole row groups without opening them.
    fn skip(&mut self, count: u64) -> Result<(), DataError> {
        while self.next < count && self.advance()? {
            let Some((column, left)) = &mut self.open else {
                break;
            };
            let skipped = if count - self.next >= *left {
                let all = *left;
                self.open = None;
                all
            } else {
                let wanted = (count - self.next) as usize;
                let skipped = guarded(|| column.skip_records(wanted)).map(|rows| rows as u64);
                *left -= skipped.as_ref().copied().unwrap_or(0).min(*left);
                match skipped {
                    Ok(0) => Err("a row group ends before its rows do".to_owned()),
                    skipped => skipped,
                }
                .map_err(|message| self.bad(message))?
            };
            self.next += skipped;
        }
        Ok(())
    }

    /// Whether there is a row group with rows to come, which is then open.
    fn advance(&mut self) -> Result<bool, DataError> {
        while self.open.as_ref().is_none_or(|(_, left)| *left == 0) {
            if self.group >= self.reader.num_row_groups() {
                return Ok(false);
            }
            let opened = guarded(|| {
                let group = self.reader.get_row_group(self.group)?;
                let rows = u64::try_from(group.metadata().num_rows())?;
                match group.get_column_reader(self.column)? {
                    ColumnReader::ByteArrayColumnReader(column) => Ok((column, rows)),
                    _ => Err(ParquetError::General(
                        "a column changes its type".to_owned(),
                    )),
                }
            });
            self.open = Some(opened.map_err(|message| self.bad(message))?);
            self.group += 1;
        }
        Ok(true)
    }

    fn decode(&mut self) -> ParquetResult<Vec<ByteArray>> {
        let Some((column, left)) = &mut self.open else {
            return Ok(Vec::new());
        };
        let wanted = ROWS.min(usize::try_from(*left).unwrap_or(ROWS));
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        let (rows, _, _) = column.read_records(wanted, Some(&mut levels), None, &mut values)?;
        if rows == 0 || rows > wanted {
            let message = format!("a row group ends {left} rows early");
            return Err(ParquetError::EOF(message));
        }
        if values.len() != rows {
            let message = format!("a `{COLUMN}` among the next {rows} rows is null");
            return Err(ParquetError::General(message));
        }
        *left -= rows as u64;
        values.reverse();
        Ok(values)
    }

    fn bad(&self, message: String) -> DataError {
        DataError::BadParquet {
            path: self.path.clone(),
            row: self.next + 1,
            message,
        }
    }
}

fn text_column(reader: &SerializedFileReader<Pages>) -> Result<usize, String> {
    let schema = reader.metadata().file_metadata().schema_descr();
    let name = |index: usize| schema.column(index).path().string();
    let columns = 0..schema.num_columns();
    let Some(index) = columns.clone().find(|&index| name(index) == COLUMN) else {
        let found: Vec<_> = columns.map(name).collect();
        return Err(format!("no column `{COLUMN}` among {}", found.join(", ")));
    };
    let column = schema.column(index);
    if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 {
        return Err(format!("the column `{COLUMN}` is not of strings"));
    }
    let mut groups = reader.metadata().row_groups().iter();
    let codec = groups.find_map(|group| {
        let codec = group.column(index).compression_codec();
        (!READ_CODECS.contains(&codec)).then_some(codec)
    });
    match codec {
        None => Ok(index),
        Some(codec) => Err(format!(
            "the column `{COLUMN}` is packed by {codec:?}, which is not read: write the file anew with zstd or Snappy, or plain"
        )),
    }
}

/// The file as the library reads it, refusing what would unpack to more than [`MAX_PAGE_BYTES`]: the library takes
/// the size that a page claims on trust, and sets that much memory aside.
struct Pages {
    file: File,
    bytes_read: Arc<AtomicU64>,
}

impl Length for Pages {
    fn len(&self) -> u64 {
        Length::len(&self.file)
    }
}

impl ChunkReader for Pages {
    type T = BufReader<File>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let mut head = Vec::new();
        let mut first = self.file.get_read(start)?.take(HEAD_BYTES as u64);
        first.read_to_end(&mut head)?;
        match claimed_size(&head) {
            Some(size) if size > MAX_PAGE_BYTES => Err(ParquetError::General(format!(
                "a page of {size} bytes: at most {MAX_PAGE_BYTES} are allowed"
            ))),
            _ => self.file.get_read(start),
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let end = start.checked_add(length as u64);
        if end.is_none_or(|end| end > Length::len(&self.file)) {
            let message = format!("{length} bytes at {start} are past the end of the file");
            return Err(ParquetError::EOF(message));
        }
        self.bytes_read.fetch_add(length as u64, Ordering::Relaxed);
        self.file.get_bytes(start, length)
    }
}

/// `uncompressed_page_size` of a page header: in Thrift's compact encoding the second field, an `i32` in zigzag
/// variable length, as is the first, the type of the page.
fn claimed_size(head: &[u8]) -> Option<u64> {
    const NEXT_FIELD_I32: u8 = 0x15;
    let mut bytes = head.iter().copied();
    let mut field = || {
        (bytes.next()? == NEXT_FIELD_I32).then_some(())?;
        let mut value = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = bytes.next()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value >> 1);
            }
        }
        None
    };
    field()?;
    field()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::{Compression, Format};
    use super::*;

    /// Writes `groups` of rows; `None` is null.
    pub(crate) fn write(
        path: &Path,
        groups: &[&[Option<&str>]],
        codec: parquet::basic::Compression,
    ) {
        let schema = "message m { required int64 id; optional binary text (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder().set_compression(codec).build();
        let file = File::create(path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
        for rows in groups {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let ids: Vec<i64> = (0..rows.len() as i64).collect();
            column
                .typed::<parquet::data_type::Int64Type>()
                .write_batch(&ids, None, None)
                .unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<ByteArray> = rows.iter().flatten().map(|&text| text.into()).collect();
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, Some(&levels), None)
                .unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
    }

    pub(crate) fn read(path: &Path, skip: u64) -> Result<Vec<Record>, DataError> {
        let file = InputFile {
            name: "f".to_owned(),
            path: path.to_owned(),
            format: Format::Parquet,
            compression: Compression::None,
        };
        let reading = Reading {
            skip,
            max_document_bytes: 10_000,
            bytes_read: Arc::default(),
        };
        super::super::Records::open(&file, &reading)?.collect()
    }

    #[test]
    fn rows_come_in_order_from_every_group_and_any_can_be_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        let texts: Vec<String> = (0..700).map(|n| format!("row {n}")).collect();
        let rows: Vec<Option<&str>> = texts.iter().map(|text| Some(text.as_str())).collect();
        for codec in [
            parquet::basic::Compression::UNCOMPRESSED,
            parquet::basic::Compression::SNAPPY,
            parquet::basic::Compression::ZSTD(Default::default()),
        ] {
            write(&path, &[&rows[..600], &[], &rows[600..]], codec);
            for skip in [0, 1, 255, 256, 599, 600, 601, 699, 700, 9999] {
                let found = read(&path, skip).unwrap();
                assert_eq!(found.len(), 700usize.saturating_sub(skip as usize));
                for (record, number) in found.iter().zip(skip..) {
                    assert_eq!(
                        (record.number, &record.text),
                        (number, &texts[number as usize])
                    );
                }
            }
        }
    }

    #[test]
    fn a_null_a_missing_column_and_a_long_text_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        let plain = parquet::basic::Compression::UNCOMPRESSED;
        write(&path, &[&[Some("a"), None]], plain);
        let error = read(&path, 0).unwrap_err().to_string();
        assert!(
            error.contains("a.parquet") && error.contains("null"),
            "{error}"
        );
        let long = "x".repeat(10_001);
        write(&path, &[&[Some("a"), Some(&long)]], plain);
        let error = read(&path, 0).unwrap_err();
        assert!(
            matches!(error, DataError::TooLong { line: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_codec_that_is_not_read_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        // By pyarrow: one row, `text` = "a".
        std::fs::write(&path, include_bytes!("../../tests/gzip.parquet")).unwrap();
        let error = read(&path, 0).unwrap_err().to_string();
        assert!(
            error.contains("a.parquet") && error.contains("packed by GZIP"),
            "{error}"
        );
    }

    #[test]
    fn the_size_that_a_page_claims_is_found_in_its_head() {
        // Type 0, then 2^30 and 300: zigzag doubles.
        assert_eq!(claimed_size(&[0x15, 0, 0x15, 0xd8, 0x04]), Some(300));
        let head = [0x15, 0, 0x15, 0x80, 0x80, 0x80, 0x80, 0x08];
        assert_eq!(claimed_size(&head), Some(1 << 30));
        assert_eq!(claimed_size(&[0x15, 2, 0x19, 0x4c]), None);
    }
}
