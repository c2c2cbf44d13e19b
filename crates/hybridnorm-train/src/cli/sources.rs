//! Sources that were prepared before: folders, and files of bare token ids.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hybridnorm_core::ConfigError;

use super::run_data::{DataFacts, NamedBatches, RunData, SideFacts};
use crate::data::{
    Batches, DataError, ShardedHeldOut, Shards, Side, SplitRule, TokenFiles, TokenSource, Tokenizer,
};
use crate::error::Error;
use crate::run::{DataConfig, RunConfig, SourceConfig};
use crate::sizes::thousands;

/// Training tokens that the yardsticks are fitted to.
const YARDSTICK_TOKENS: u64 = 2 << 20;

/// The sources of a run, open.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    sources: Vec<Source>,
    end_of_document: u32,
}

#[derive(Debug, Clone)]
struct Source {
    path: PathBuf,
    weight: f64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Folder(Box<Shards>),
    Bare(Arc<TokenFiles>, u32),
}

impl Sources {
    /// Opens the sources that `data` names, if any, and the tokenizer that goes with them. `data.tokenizer` is then the
    /// folder's copy; where something else is asked for, it must be the same tokenizer.
    pub(super) fn open(data: &mut DataConfig) -> Result<(Option<Self>, Tokenizer), Error> {
        let listed = match &data.path {
            Some(path) if Shards::is_prepared(path) => vec![SourceConfig {
                path: path.clone(),
                weight: 1.0,
                width: None,
                end_of_document: None,
            }],
            _ => data.sources.clone(),
        };
        if listed.is_empty() {
            return Ok((None, Tokenizer::from_spec(&data.tokenizer)?));
        }
        let sources = listed.iter().map(Source::open);
        let sources: Vec<Source> = sources.collect::<Result<_, DataError>>()?;
        let tokenizer = tokenizer(data, &sources)?;
        let mut ends = sources.iter().map(Source::end_of_document);
        let end_of_document = ends.next().unwrap_or_default();
        if let Some(other) = ends.find(|end| *end != end_of_document) {
            let allowed = format!("{end_of_document}, as in the first source");
            let field = "data.sources.end_of_document";
            return Err(ConfigError::new(field, other, allowed).into());
        }
        let sources = Self {
            sources,
            end_of_document,
        };
        Ok((Some(sources), tokenizer))
    }

    /// What a run makes of them.
    pub(super) fn read(&self, config: &RunConfig, tokenizer: &Tokenizer) -> Result<RunData, Error> {
        let (training, data) = (&config.training, &config.data);
        let learnt = || self.sources.iter().filter(|source| source.weight > 0.0);
        let mixed = learnt().map(|source| (source.tokens(), source.weight));
        let batches = Batches::mixed(mixed.collect(), training.seq, training.batch, training.seed)?
            .with_repetition_filter(data.repetition_filter);
        let folders = self
            .folders()
            .filter(|shards| !shards.index().validation.is_empty());
        let folders: Vec<&Shards> = folders.collect();
        if folders.is_empty() {
            let path = self
                .sources
                .first()
                .map_or(Path::new(""), |source| &source.path);
            let allowed = "a source with held-out documents: prepare one with --validation above 0, and list it in \
                           data.sources, with weight 0 to learn nothing from it";
            return Err(ConfigError::new("data", path.display(), allowed).into());
        }
        let held_out = ShardedHeldOut::of(&folders)?;
        let identities: Vec<String> = learnt()
            .map(|source| Ok(format!("{} x {}", source.weight, source.identity()?)))
            .collect::<Result<_, DataError>>()?;
        let held_out_of: Vec<&str> = folders.iter().map(|shards| shards.identity()).collect();
        let identity = format!(
            "{} as {}, held out of {}",
            identities.join(" + "),
            tokenizer.identity(),
            held_out_of.join(" + ")
        );
        let most: u64 = learnt().map(|source| source.tokens().tokens()).sum();
        let train_text = sample(&batches, most, training.seq, tokenizer)?;
        Ok(RunData {
            facts: self.facts(&identity, train_text.len()),
            batches: NamedBatches {
                batches,
                names: learnt()
                    .map(|source| source.path.display().to_string())
                    .collect(),
                identity,
                end_of_document: self.end_of_document,
            },
            held_out: Box::new(held_out),
            train_text,
            validation_text: None,
        })
    }

    fn folders(&self) -> impl Iterator<Item = &Shards> {
        self.sources.iter().filter_map(|source| match &source.kind {
            Kind::Folder(shards) => Some(&**shards),
            Kind::Bare(..) => None,
        })
    }

    fn facts(&self, identity: &str, sampled: usize) -> DataFacts {
        let mut sides = [SideFacts::default(), SideFacts::default()];
        for source in &self.sources {
            match &source.kind {
                Kind::Folder(shards) => {
                    let learnt = source.weight > 0.0;
                    for (facts, side) in sides.iter_mut().zip([Side::Train, Side::Validation]) {
                        if learnt || side == Side::Validation {
                            facts.add(shards.index().totals(side));
                        }
                    }
                }
                Kind::Bare(files, _) => sides[0].tokens += files.tokens(),
            }
        }
        let [train, validation] = sides;
        let sum: f64 = self.sources.iter().map(|source| source.weight).sum();
        let note = |source: &Source| {
            let share = 100.0 * source.weight / sum;
            let tokens = thousands(source.tokens().tokens());
            format!(
                "{share:.1} % of the sequences from {tokens} tokens of {}",
                source.path.display()
            )
        };
        let mut notes: Vec<String> = self.sources.iter().map(note).collect();
        notes.push(format!(
            "unigram, bigram and zstd know {} bytes of the training text",
            thousands(sampled as u64)
        ));
        DataFacts {
            description: match self.sources.as_slice() {
                [source] => format!("prepared, {}", source.path.display()),
                sources => format!("prepared, {} sources", sources.len()),
            },
            notes,
            bytes: train.bytes + validation.bytes,
            documents: train.documents + validation.documents,
            hash: blake3::hash(identity.as_bytes()).to_hex().to_string(),
            rule: SplitRule::Documents,
            train,
            validation,
        }
    }
}

impl Source {
    fn open(config: &SourceConfig) -> Result<Self, DataError> {
        let path = config.path.clone();
        let kind = match (config.width, config.end_of_document) {
            (Some(width), Some(end)) => Kind::Bare(Arc::new(TokenFiles::raw(&path, width)?), end),
            _ => Kind::Folder(Box::new(Shards::open(&path)?)),
        };
        Ok(Self {
            path,
            weight: config.weight,
            kind,
        })
    }

    fn tokens(&self) -> Arc<dyn TokenSource> {
        match &self.kind {
            Kind::Folder(shards) => shards.train(),
            Kind::Bare(files, _) => files.clone(),
        }
    }

    fn end_of_document(&self) -> u32 {
        match &self.kind {
            Kind::Folder(shards) => shards.index().end_of_document,
            Kind::Bare(_, end) => *end,
        }
    }

    fn identity(&self) -> Result<String, DataError> {
        match &self.kind {
            Kind::Folder(shards) => Ok(shards.identity().to_string()),
            Kind::Bare(files, _) => files.fingerprint(),
        }
    }
}

/// The one tokenizer of all folders; of bare ids alone, the configured one.
fn tokenizer(data: &mut DataConfig, sources: &[Source]) -> Result<Tokenizer, Error> {
    let mut found: Option<(Tokenizer, &Path)> = None;
    for source in sources {
        let Kind::Folder(shards) = &source.kind else {
            continue;
        };
        let tokenizer = shards.tokenizer()?;
        match &found {
            None => found = Some((tokenizer, &source.path)),
            Some((first, path)) if first.identity() != tokenizer.identity() => {
                let allowed = format!("a folder with the tokenizer of {}", path.display());
                let path = source.path.display();
                return Err(ConfigError::new("data.sources", path, allowed).into());
            }
            Some(_) => {}
        }
    }
    let byte = Tokenizer::Byte.name();
    match found {
        None => Ok(Tokenizer::from_spec(&data.tokenizer)?),
        Some((tokenizer, path)) => {
            // `byte` is also what stands there when nobody chose anything.
            if data.tokenizer != byte
                && Tokenizer::from_spec(&data.tokenizer)?.identity() != tokenizer.identity()
            {
                let allowed = format!("the tokenizer that {} was prepared with", path.display());
                let chosen = &data.tokenizer;
                return Err(ConfigError::new("data.tokenizer", chosen, allowed).into());
            }
            data.tokenizer = tokenizer.name();
            Ok(tokenizer)
        }
    }
}

/// The text of the first sequences of the run, for the yardsticks; no more of them than hold the `most` tokens that there are.
fn sample(
    batches: &Batches,
    most: u64,
    seq: usize,
    tokenizer: &Tokenizer,
) -> Result<Vec<u8>, DataError> {
    let mut text = Vec::new();
    for index in 0..YARDSTICK_TOKENS.min(most).div_ceil(seq as u64) {
        let ids = batches.sequence(index)?;
        text.extend(tokenizer.decode(&ids[1..])?.into_bytes());
    }
    Ok(text)
}
