//! A pair of shards that are written and closed together.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::documents::{Document, Mark};
use super::folder::Folder;
use super::state::State;
use crate::shards::NewFile;
use crate::{DataError, Encoding, Shard, Side, Tokenizer, Width};

/// A document as ids.
pub(super) struct Encoded {
    side: Side,
    key: u128,
    ids: Vec<u32>,
    bytes: u64,
    /// For a held-out document, its text and where in it each id ends.
    held_out: Option<(String, Vec<usize>)>,
    pub(super) mark: Mark,
}

impl Encoded {
    pub(super) fn new(document: Document, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let Document {
            text,
            side,
            key,
            mark,
        } = document;
        let end = tokenizer.end_of_document()?;
        let bytes = text.len() as u64;
        let (mut ids, held_out) = match side {
            Side::Train => (tokenizer.encode(&text)?, None),
            Side::Validation => {
                let Encoding { ids, mut ends } = tokenizer.encode_with_ends(&text)?;
                ends.push(text.len());
                (ids, Some((text, ends)))
            }
        };
        ids.push(end);
        Ok(Self {
            side,
            key,
            ids,
            bytes,
            held_out,
            mark,
        })
    }

    pub(super) fn tokens(&self) -> u64 {
        self.ids.len() as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The pair being written. A side without documents has no files.
pub(super) struct Segment {
    dir: PathBuf,
    width: Width,
    numbers: [usize; 2],
    sides: [Option<Open>; 2],
    /// The keys of the documents, if repeated ones are to be dropped.
    keys: Option<Vec<u8>>,
}

struct Open {
    files: BTreeMap<&'static str, NewFile>,
    tokens: u64,
    documents: u64,
    bytes: u64,
}

impl Segment {
    pub(super) fn new(folder: &Folder, state: &State) -> Self {
        Self {
            dir: folder.dir().to_owned(),
            width: state.settings.width(),
            numbers: [Side::Train, Side::Validation].map(|side| state.shards(side).len()),
            sides: [None, None],
            keys: state.settings.deduplicate.then(Vec::new),
        }
    }

    /// Tokens of the longer side.
    pub(super) fn tokens(&self) -> u64 {
        let sides = self.sides.iter().flatten();
        sides.map(|side| side.tokens).max().unwrap_or(0)
    }

    pub(super) fn write(&mut self, document: &Encoded) -> Result<(), DataError> {
        if let Some(keys) = &mut self.keys {
            keys.extend(document.key.to_le_bytes());
        }
        let side = document.side as usize;
        let open = match &mut self.sides[side] {
            Some(open) => open,
            empty => empty.insert(Open::create(document.side, self.numbers[side], &self.dir)?),
        };
        open.write(document, self.width)
    }

    /// Closes the shards, then says so in `progress.json`.
    pub(super) fn finish(self, folder: &mut Folder, state: &mut State) -> Result<(), DataError> {
        for (open, side) in self.sides.into_iter().zip([Side::Train, Side::Validation]) {
            if let Some(open) = open {
                state.shards_mut(side).push(open.finish()?);
            }
        }
        folder.record(state, self.keys.as_deref())
    }
}

impl Open {
    fn create(side: Side, number: usize, dir: &std::path::Path) -> Result<Self, DataError> {
        let create = |&ending: &&'static str| {
            let path = dir.join(side.file_name(number, ending));
            Ok((ending, NewFile::create(path)?))
        };
        Ok(Self {
            files: side
                .endings()
                .iter()
                .map(create)
                .collect::<Result<_, DataError>>()?,
            tokens: 0,
            documents: 0,
            bytes: 0,
        })
    }

    fn write(&mut self, document: &Encoded, width: Width) -> Result<(), DataError> {
        let ids = &document.ids;
        let id_bytes: Vec<u8> = match width {
            // No id reaches past the vocabulary, which the width is chosen for.
            Width::U16 => ids
                .iter()
                .flat_map(|&id| (id as u16).to_le_bytes())
                .collect(),
            Width::U32 => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        };
        self.tokens += ids.len() as u64;
        self.documents += 1;
        self.append(Side::TOKENS, &id_bytes)?;
        self.append(Side::DOCS, &self.tokens.to_le_bytes())?;
        if let Some((text, ends)) = &document.held_out {
            let place = |&end: &usize| (self.bytes + end as u64).to_le_bytes();
            let ends: Vec<u8> = ends.iter().flat_map(place).collect();
            self.append(Side::ENDS, &ends)?;
            self.append(Side::TEXT, text.as_bytes())?;
        }
        self.bytes += document.bytes;
        Ok(())
    }

    fn append(&mut self, ending: &str, bytes: &[u8]) -> Result<(), DataError> {
        match self.files.get_mut(ending) {
            Some(file) => file.write(bytes),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Shard, DataError> {
        let finish = |(ending, file): (&str, NewFile)| Ok((ending.to_owned(), file.finish()?));
        Ok(Shard {
            tokens: self.tokens,
            documents: self.documents,
            bytes: self.bytes,
            files: self
                .files
                .into_iter()
                .map(finish)
                .collect::<Result<_, DataError>>()?,
        })
    }
}
