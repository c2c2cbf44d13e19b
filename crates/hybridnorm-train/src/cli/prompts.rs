//! Prompts from a file.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{BadLine, Error};
use crate::generate::Message;

/// What is to be continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Prompt {
    /// A text; with --chat, what a user says.
    Text(String),
    /// A conversation.
    Messages(Vec<Message>),
}

impl Prompt {
    /// The text; nothing of a conversation.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Messages(_) => "",
        }
    }
}

/// A line of a `.jsonl` file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
}

/// The prompts in `path`: of a `.jsonl` file one on each line, as `prompt` or, with `chat`, as `messages`; of any other each line that is
/// not blank.
///
/// # Errors
/// When the file cannot be read, a line is not as it should be, or there is no prompt.
pub(super) fn read_prompts(path: &Path, chat: bool) -> Result<Vec<Prompt>, Error> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    let is_json = path
        .extension()
        .is_some_and(|extension| extension == "jsonl");
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let prompts = lines.map(|(number, line)| match is_json {
        false => Ok(Prompt::Text(line.to_string())),
        true => parse(line, chat).map_err(|reason| BadLine {
            path: path.to_path_buf(),
            line: number + 1,
            reason,
        }),
    });
    let prompts: Vec<Prompt> = prompts.collect::<Result<_, BadLine>>()?;
    match prompts.is_empty() {
        false => Ok(prompts),
        true => Err(BadLine {
            path: path.to_path_buf(),
            line: 1,
            reason: "there is no prompt: expected one on each line".to_string(),
        }
        .into()),
    }
}

fn parse(line: &str, chat: bool) -> Result<Prompt, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    match line {
        Line {
            prompt: Some(prompt),
            messages: None,
        } => Ok(Prompt::Text(prompt)),
        Line {
            prompt: None,
            messages: Some(messages),
        } if !messages.is_empty() => match chat {
            true => Ok(Prompt::Messages(messages)),
            false => Err("`messages` need --chat, which puts them into the words of the model's template".to_string()),
        },
        _ => Err("expected an object with either `prompt`, a string, or `messages`, a list that is not empty".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str, chat: bool) -> Result<Vec<Prompt>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        read_prompts(&path, chat).map_err(|error| error.to_string())
    }

    #[test]
    fn every_line_that_is_not_blank_is_a_prompt() {
        let text = |text: &str| Prompt::Text(text.to_string());
        assert_eq!(
            read("a.txt", " one\n\ntwo", false).unwrap(),
            [text(" one"), text("two")]
        );
        let lines = "{\"prompt\": \"one\\ntwo\"}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"hm\"}]}\n";
        let messages = Prompt::Messages(vec![Message::new("user", "hm")]);
        assert_eq!(
            read("a.jsonl", lines, true).unwrap(),
            [text("one\ntwo"), messages]
        );
    }

    #[test]
    fn a_line_that_is_no_prompt_is_named() {
        for (text, words) in [
            ("{\"prompt\": \"a\"}\n{\"prompt\": 3}", "a.jsonl:2: "),
            ("{\"prompt\": \"a\"}\n\nnothing", "a.jsonl:3: "),
            ("{\"propmt\": \"a\"}", "propmt"),
            ("{}", "either `prompt`"),
            ("{\"messages\": []}", "not empty"),
            (
                "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
                "--chat",
            ),
            ("\n", "no prompt"),
        ] {
            let message = read("a.jsonl", text, false).unwrap_err();
            assert!(message.contains(words), "no {words:?} in: {message}");
        }
    }
}
