//! `generate`: text from a trained model.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::prompts::{Prompt, read_prompts};
use crate::device::DeviceSpec;
use crate::error::Error;
use crate::generate::{Ending, Event, Message, Report, Sampling, Settings};
use crate::model::TrainedModel;

/// The flags of `generate`.
#[derive(Debug, Clone, Args)]
pub struct GenerateFlags {
    /// The model: a run directory, whose newest whole checkpoint is used; one checkpoint; a Hugging Face folder; or `hf:owner/name[@revision]`
    #[arg(long, value_name = "DIR", visible_alias = "run")]
    model: PathBuf,
    /// Text to continue; `-` reads it from standard input [default: none, which begins a document]
    #[arg(long, value_name = "TEXT|-")]
    prompt: Option<String>,
    /// Prompts from a file: `.jsonl` with `prompt` or `messages` on each line, of any other name a prompt a line. Each text is printed as one
    /// line of JSON
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// Texts written side by side, of --prompts
    #[arg(long, value_name = "N", default_value_t = 8, requires = "prompts")]
    batch: usize,
    /// Tokens to generate at most
    #[arg(long, value_name = "N", default_value_t = 256)]
    tokens: usize,
    /// Divides the logits; 0 always takes the most likely token
    #[arg(long, value_name = "T", allow_negative_numbers = true, default_value_t = Sampling::default().temperature)]
    temperature: f64,
    /// Keep only the N most likely tokens
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Keep only the most likely tokens that reach probability P together [default: 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f64>,
    /// Keep only tokens at least P times as likely as the most likely one
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f64>,
    /// Make tokens that the text holds less likely: their logits are divided by it where positive, multiplied where negative
    #[arg(long, value_name = "F", allow_negative_numbers = true, default_value_t = Sampling::default().repetition_penalty)]
    repetition_penalty: f64,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End a text before this string; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// The prompt is what a user says, in the words of the tokenizer's chat template; only the answer is printed
    #[arg(long)]
    chat: bool,
    /// What the template is told as the system, before the user
    #[arg(long, value_name = "TEXT", requires = "chat")]
    system: Option<String>,
    /// Another tokenizer than the model's own: `byte` or a tokenizer.json
    #[arg(long, value_name = "FILE|byte")]
    tokenizer: Option<String>,
    /// Where to compute [default: the best compiled in]
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
}

pub(super) fn run(flags: &GenerateFlags, out: &mut impl Write) -> Result<(), Error> {
    let settings = flags.settings();
    settings.validate()?;
    let prompts = flags.prompts()?;
    let device = match &flags.device {
        Some(name) => name.parse::<DeviceSpec>()?,
        None => DeviceSpec::best()?,
    }
    .open()?;
    let model = TrainedModel::open(&flags.model, flags.tokenizer.as_deref(), &device)?;
    for note in &model.notes {
        // Where standard error is gone, the text is all there is to give.
        let _ = writeln!(io::stderr(), "warning: {note}");
    }
    let ids = flags.ids(&model, &prompts)?;
    let report = match &flags.prompts {
        Some(_) => write_lines(&model, (&prompts, &ids), &settings, out)?,
        None => {
            // What a user says to a template is not the beginning of its answer.
            let said = prompts.iter().map(Prompt::text).filter(|_| !flags.chat);
            stream(&model, (&said.collect::<String>(), &ids), &settings, out)?
        }
    };
    // A report on the side: where it cannot be written, nobody is there to read it.
    let _ = writeln!(io::stderr(), "{}", figures(&report));
    Ok(())
}

impl GenerateFlags {
    fn settings(&self) -> Settings {
        Settings {
            tokens: self.tokens,
            sampling: Sampling {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p.or(Sampling::default().top_p),
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                seed: self.seed,
            },
            stops: self.stop.clone(),
            batch: self.batch,
        }
    }

    fn prompts(&self) -> Result<Vec<Prompt>, Error> {
        if let Some(file) = &self.prompts {
            return read_prompts(file, self.chat);
        }
        let text = match self.prompt.as_deref() {
            Some("-") => read_input()?,
            text => text.unwrap_or_default().to_string(),
        };
        Ok(vec![Prompt::Text(text)])
    }

    /// The token ids of the prompts, each short enough.
    fn ids(&self, model: &TrainedModel, prompts: &[Prompt]) -> Result<Vec<Vec<u32>>, Error> {
        let template = match self.chat {
            true => Some(model.chat_template()?),
            false => None,
        };
        let ids = prompts.iter().map(|prompt| {
            let ids = match (&template, prompt) {
                (None, prompt) => model.prompt(prompt.text())?,
                (Some(template), Prompt::Messages(messages)) => {
                    model.conversation(template, messages)?
                }
                (Some(template), Prompt::Text(text)) => {
                    let system = self.system.as_ref();
                    let system = system.map(|text| Message::new("system", text));
                    let messages = system.into_iter().chain([Message::new("user", text)]);
                    model.conversation(template, &messages.collect::<Vec<_>>())?
                }
            };
            model.generator().check(&ids)?;
            Ok(ids)
        });
        ids.collect()
    }
}

/// One text, as it comes, behind `echo`.
fn stream(
    model: &TrainedModel,
    (echo, ids): (&str, &[Vec<u32>]),
    settings: &Settings,
    out: &mut impl Write,
) -> Result<Report, Error> {
    let mut written = write_now(out, echo);
    let report = model.generator().run(ids, settings, |_, event| {
        if let (Ok(()), Event::Text(text)) = (&written, event) {
            written = write_now(out, &text);
        }
        written.is_ok()
    })?;
    written
        .and_then(|()| writeln!(out))
        .map_err(Error::Output)?;
    Ok(report)
}

/// Each text as a line of JSON, in the order of the prompts.
fn write_lines(
    model: &TrainedModel,
    (prompts, ids): (&[Prompt], &[Vec<u32>]),
    settings: &Settings,
    out: &mut impl Write,
) -> Result<Report, Error> {
    let mut texts = vec![String::new(); prompts.len()];
    let mut ended: BTreeMap<usize, (Ending, usize)> = BTreeMap::new();
    let (mut next, mut written) = (0, Ok(()));
    let report = model.generator().run(ids, settings, |index, event| {
        match event {
            Event::Text(text) => texts[index] += &text,
            Event::Ended { ending, tokens } => {
                ended.insert(index, (ending, tokens));
            }
        }
        while let Some((ending, tokens)) = ended.remove(&next) {
            let line = json!({
                "index": next,
                "prompt": prompts[next],
                "text": std::mem::take(&mut texts[next]),
                "ending": ending,
                "tokens": tokens,
            });
            written = write_now(out, &format!("{line}\n"));
            next += 1;
        }
        written.is_ok()
    })?;
    written.map_err(Error::Output)?;
    Ok(report)
}

/// How fast it was, in a line.
fn figures(report: &Report) -> String {
    let rate = |tokens: usize, seconds: f64| match seconds > 0.0 {
        true => format!("{:.0} tokens/s", tokens as f64 / seconds),
        false => "no time".to_string(),
    };
    format!(
        "{} tokens of prompt, {}; {} tokens of text, {}",
        report.prompt_tokens,
        rate(report.prompt_tokens, report.prefill.as_secs_f64()),
        report.tokens,
        rate(report.decoded, report.decode.as_secs_f64()),
    )
}

fn write_now(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn read_input() -> Result<String, Error> {
    let mut prompt = String::new();
    io::stdin()
        .read_to_string(&mut prompt)
        .map_err(Error::io("read", "standard input".as_ref()))?;
    Ok(prompt)
}
