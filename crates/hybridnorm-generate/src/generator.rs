//! Several texts side by side, token by token.

use std::time::Duration;

use hybridnorm_core::{ConfigError, Decoder, FeedForward};
use hybridnorm_tokenizer::Tokenizer;
use web_time::Instant;

use crate::error::GenerateError;
use crate::sampling::{Sampler, Sampling};
use crate::stop::Stops;
use crate::stream::TextStream;
use crate::texts::{Texts, now};
use crate::vocabulary::fits;

/// A model that writes.
#[derive(Debug)]
pub struct Generator<'a, F: FeedForward> {
    /// The model.
    pub model: &'a Decoder<F>,
    /// What its tokens stand for.
    pub tokenizer: &'a Tokenizer,
    /// Tokens it sees at once.
    pub window: usize,
    /// Ids that end a text.
    pub ends: &'a [u32],
}

/// How texts are generated.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Tokens of each text at most.
    pub tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Strings that end a text; they are not part of it.
    pub stops: Vec<String>,
    /// Texts that are written side by side.
    pub batch: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tokens: 256,
            sampling: Sampling::default(),
            stops: Vec::new(),
            batch: 1,
        }
    }
}

impl Settings {
    /// Refuses what cannot be generated with.
    ///
    /// # Errors
    /// Names the parameter, its value and what is allowed.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.sampling.validate()?;
        if self.stops.iter().any(String::is_empty) {
            return Err(ConfigError::new("stop", "\"\"", "at least one character"));
        }
        if self.batch == 0 {
            return Err(ConfigError::new("batch", 0, "at least 1"));
        }
        Ok(())
    }
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The model ended it.
    End,
    /// A stop string.
    Stop,
    /// It has as many tokens as were asked for.
    Length,
}

/// A part of a text, or its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The next whole characters; perhaps none.
    Text(String),
    /// No more of this text comes.
    Ended {
        /// Why.
        ending: Ending,
        /// Tokens generated, an end of text among them.
        tokens: usize,
    },
}

/// What it took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Time that they took.
    pub prefill: Duration,
    /// Tokens that were generated.
    pub tokens: usize,
    /// Those of them that a pass of their own was computed for: not the first of each text.
    pub decoded: usize,
    /// Time that those took.
    pub decode: Duration,
}

/// A text that is being written.
struct Writing<'a> {
    /// Which prompt it continues.
    index: usize,
    /// The prompt and what was written.
    ids: Vec<u32>,
    written: usize,
    sampler: Sampler,
    stream: TextStream<'a>,
    stops: Stops<'a>,
}

impl<F: FeedForward + Sync> Generator<'_, F> {
    /// Refuses a tokenizer that turns text into ids for which the model has no row: see [`fits`].
    ///
    /// # Errors
    /// Says how many of each there are.
    pub fn check_vocabulary(&self) -> Result<(), ConfigError> {
        let [rows, _] = self.model.embedding.weight.dims();
        fits(self.tokenizer, rows).map(drop)
    }

    /// Refuses a prompt that the model cannot see whole.
    ///
    /// # Errors
    /// When it has no token or too many, or one that the model has no row for.
    pub fn check(&self, prompt: &[u32]) -> Result<(), ConfigError> {
        if prompt.is_empty() {
            let allowed = "at least one token; this tokenizer has none to start a text with";
            return Err(ConfigError::new("tokens of the prompt", 0, allowed));
        }
        if prompt.len() > self.window {
            let allowed = format!(
                "at most {}, the context the model was trained on",
                self.window
            );
            return Err(ConfigError::new(
                "tokens of the prompt",
                prompt.len(),
                allowed,
            ));
        }
        let [rows, _] = self.model.embedding.weight.dims();
        if let Some(id) = prompt.iter().find(|id| **id as usize >= rows) {
            let name = self.tokenizer.token(*id);
            let name = name.map_or(String::new(), |name| format!(" ({name})"));
            let allowed = format!("an id below {rows}: the model has no row for it");
            return Err(ConfigError::new(
                "token of the prompt",
                format!("{id}{name}"),
                allowed,
            ));
        }
        Ok(())
    }

    /// Continues each of `prompts`, token ids, and hands what comes to `emit` with the number of the prompt, from 0; `emit` stops
    /// everything by returning `false`. A text does not depend on those written beside it, but for roundings.
    ///
    /// # Errors
    /// When a parameter is out of range, a prompt is empty or too long, the tokenizer refuses an id, or the device fails.
    pub fn run(
        &self,
        prompts: &[Vec<u32>],
        settings: &Settings,
        mut emit: impl FnMut(usize, Event) -> bool,
    ) -> Result<Report, GenerateError> {
        let emit = async |index, event| emit(index, event);
        now(
            &self.model.embedding.weight.val().device(),
            self.run_async(prompts, settings, emit),
        )
    }

    /// The same where nothing may be waited for, as for a GPU in a browser.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_async(
        &self,
        prompts: &[Vec<u32>],
        settings: &Settings,
        mut emit: impl AsyncFnMut(usize, Event) -> bool,
    ) -> Result<Report, GenerateError> {
        settings.validate()?;
        prompts.iter().try_for_each(|prompt| self.check(prompt))?;
        let mut report = Report::default();
        let numbered: Vec<(usize, &Vec<u32>)> = prompts.iter().enumerate().collect();
        for batch in numbered.chunks(settings.batch) {
            if !self.write(batch, settings, &mut report, &mut emit).await? {
                break;
            }
        }
        Ok(report)
    }

    /// One batch. False where `emit` has had enough.
    async fn write(
        &self,
        prompts: &[(usize, &Vec<u32>)],
        settings: &Settings,
        report: &mut Report,
        emit: &mut impl AsyncFnMut(usize, Event) -> bool,
    ) -> Result<bool, GenerateError> {
        let longest = prompts.iter().map(|(_, prompt)| prompt.len()).max();
        let longest = longest.unwrap_or(0).saturating_add(settings.tokens);
        let mut texts = Texts::new(self.model, self.window, longest);
        let (mut writing, mut logits) = (Vec::new(), Vec::new());
        for &(index, prompt) in prompts {
            if settings.tokens == 0 {
                let (ending, tokens) = (Ending::Length, 0);
                if !emit(index, Event::Ended { ending, tokens }).await {
                    return Ok(false);
                }
                continue;
            }
            let began = Instant::now();
            logits.push(texts.begin_async(prompt).await?);
            report.prefill += began.elapsed();
            report.prompt_tokens += prompt.len();
            writing.push(Writing {
                index,
                ids: prompt.clone(),
                written: 0,
                sampler: Sampler::of_text(settings.sampling, index)?,
                stream: TextStream::new(self.tokenizer),
                stops: Stops::new(&settings.stops),
            });
        }
        if writing.is_empty() {
            return Ok(true);
        }
        loop {
            let began = Instant::now();
            let mut going = Vec::new();
            for (row, (writing, logits)) in writing.iter_mut().zip(&mut logits).enumerate() {
                report.tokens += 1;
                let (text, ending) = self.choose(writing, logits, settings.tokens)?;
                if !text.is_empty() && !emit(writing.index, Event::Text(text)).await {
                    return Ok(false);
                }
                let Some(ending) = ending else {
                    going.push(row);
                    continue;
                };
                let tokens = writing.written;
                if !emit(writing.index, Event::Ended { ending, tokens }).await {
                    return Ok(false);
                }
            }
            if going.is_empty() {
                report.decode += began.elapsed();
                return Ok(true);
            }
            let mut row = 0;
            writing.retain(|_| {
                row += 1;
                going.contains(&(row - 1))
            });
            texts.keep(&going);
            let next: Vec<u32> = writing
                .iter()
                .filter_map(|text| text.ids.last().copied())
                .collect();
            logits = texts.step_async(&next).await?;
            report.decoded += next.len();
            report.decode += began.elapsed();
        }
    }

    /// Adds a token to a text: the characters that are certain now, and why the text ends with it, if so.
    fn choose(
        &self,
        writing: &mut Writing<'_>,
        logits: &mut Vec<f32>,
        most: usize,
    ) -> Result<(String, Option<Ending>), GenerateError> {
        // The rows beyond the vocabulary stand for no token.
        logits.truncate(self.tokenizer.vocab_size());
        let next = writing.sampler.pick(logits, &writing.ids);
        let Some(next) = next else {
            return Err(GenerateError::NotFinite {
                text: writing.index + 1,
                tokens: writing.written,
            });
        };
        let next = next as u32;
        writing.written += 1;
        let ended = self.ends.contains(&next);
        let (mut text, stopped) = if ended {
            writing.stops.push(&writing.stream.finish()?)
        } else {
            writing.ids.push(next);
            writing.stops.push(&writing.stream.push(next)?)
        };
        if stopped {
            return Ok((text, Some(Ending::Stop)));
        }
        if ended {
            text += &writing.stops.finish();
            return Ok((text, Some(Ending::End)));
        }
        if writing.written < most {
            return Ok((text, None));
        }
        let (rest, stopped) = writing.stops.push(&writing.stream.finish()?);
        text += &rest;
        if stopped {
            return Ok((text, Some(Ending::Stop)));
        }
        text += &writing.stops.finish();
        Ok((text, Some(Ending::Length)))
    }
}
