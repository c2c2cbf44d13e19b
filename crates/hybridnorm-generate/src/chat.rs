//! Chat templates: what a tokenizer's folder says about how a conversation becomes one text.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use crate::error::GenerateError;

/// A template as a file of its own, which transformers writes since version 4.52.
const TEMPLATE_FILE: &str = "chat_template.jinja";
/// Where it stood before, and where the special tokens stand.
const CONFIG_FILE: &str = "tokenizer_config.json";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self {
            role: role.to_string(),
            content: content.into(),
        }
    }
}

/// A Jinja template that turns a conversation into the text a model was trained on.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    place: PathBuf,
    source: String,
    /// `bos_token` and the like.
    tokens: BTreeMap<String, String>,
}

impl ChatTemplate {
    /// The template of the tokenizer in `folder`: `chat_template.jinja`, or the one in `tokenizer_config.json` (of several, the one named
    /// `default`).
    ///
    /// # Errors
    /// When there is none, or a file cannot be read.
    pub fn of_folder(folder: &Path) -> Result<Self, GenerateError> {
        let file = folder.join(CONFIG_FILE);
        let config: serde_json::Map<String, serde_json::Value> = match read(&file)? {
            Some(text) => serde_json::from_str(&text).map_err(|error| bad(&file, error))?,
            None => serde_json::Map::new(),
        };
        let tokens = config.iter().filter_map(|(name, value)| {
            let text = value.as_str().or_else(|| value.get("content")?.as_str());
            let is_token = name.ends_with("_token");
            Some((name.clone(), text.filter(|_| is_token)?.to_string()))
        });
        let tokens = tokens.collect();
        let own = folder.join(TEMPLATE_FILE);
        if let Some(source) = read(&own)? {
            return Ok(Self {
                place: own,
                source,
                tokens,
            });
        }
        let source = config.get("chat_template").and_then(|template| {
            let listed = || {
                let mut all = template.as_array()?.iter();
                let default = all.find(|one| one["name"] == "default")?;
                default["template"].as_str()
            };
            template.as_str().or_else(listed).map(str::to_string)
        });
        source
            .map(|source| Self {
                place: file,
                source,
                tokens,
            })
            .ok_or_else(|| {
                bad(
                    folder,
                    format!("this model's tokenizer has no chat template: it holds neither a {TEMPLATE_FILE} nor a {CONFIG_FILE} with a chat_template; leave --chat out to continue a text"),
                )
            })
    }

    /// The text of a conversation, up to where the model's turn begins.
    ///
    /// # Errors
    /// When the template is wrong, or refuses the conversation.
    pub fn render(&self, messages: &[Message]) -> Result<String, GenerateError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<Value, _>(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        // As transformers defines it: the built-in one writes `<` as \u003c.
        environment.add_filter("tojson", |value: Value| {
            serde_json::to_string(&value).map_err(|error| {
                minijinja::Error::new(ErrorKind::BadSerialization, error.to_string())
            })
        });
        let none = Value::from(());
        let values = context! {
            messages,
            add_generation_prompt => true,
            tools => none,
            documents => none,
            ..Value::from_serialize(&self.tokens)
        };
        let refused = |error: minijinja::Error| {
            let line = error
                .line()
                .map_or(String::new(), |line| format!("line {line}: "));
            let what = error
                .detail()
                .map_or_else(|| error.kind().to_string(), str::to_string);
            bad(
                &self.place,
                format!("the chat template cannot be used: {line}{what}"),
            )
        };
        environment
            .template_from_str(&self.source)
            .and_then(|template| template.render(values))
            .map_err(refused)
    }
}

/// The text of a file; `None` where there is no such file.
fn read(file: &Path) -> Result<Option<String>, GenerateError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(bad(file, error)),
    }
}

fn bad(place: &Path, reason: impl ToString) -> GenerateError {
    GenerateError::Chat {
        place: place.display().to_string(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A template in the words that published ones use: strip, loop variables, negative indices, refusals.
    const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}\
        {% if loop.first and message['role'] not in ['system', 'user'] %}{{ raise_exception('begin with the user') }}{% endif %}\
        {{ '<|' + message.role + '|>' }}\n{{ message['content'].strip() }}{% if not loop.last %}{{ eos_token }}\n{% endif %}\
        {% endfor %}{% if messages[-1].role == 'user' and add_generation_prompt and not tools %}\n<|assistant|>\n{% endif %}";

    fn folder(files: &[(&str, String)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn config(template: &serde_json::Value) -> String {
        serde_json::json!({
            "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": false},
            "model_max_length": 1e30,
            "chat_template": template,
        })
        .to_string()
    }

    fn conversation() -> Vec<Message> {
        vec![
            Message::new("system", " Be brief. "),
            Message::new("user", "Why \"<\"?"),
        ]
    }

    #[test]
    fn a_conversation_becomes_the_text_of_its_template() {
        let expected = "<s><|system|>\nBe brief.</s>\n<|user|>\nWhy \"<\"?<|assistant|>\n";
        let template = serde_json::json!(TEMPLATE);
        let listed = serde_json::json!([
            {"name": "tool_use", "template": "no"}, {"name": "default", "template": TEMPLATE}
        ]);
        let own = ("chat_template.jinja", TEMPLATE.to_string());
        for files in [
            vec![("tokenizer_config.json", config(&template))],
            vec![("tokenizer_config.json", config(&listed))],
            vec![own, ("tokenizer_config.json", config(&"no".into()))],
        ] {
            let folder = folder(&files);
            let template = ChatTemplate::of_folder(folder.path()).unwrap();
            assert_eq!(template.render(&conversation()).unwrap(), expected);
        }
    }

    #[test]
    fn json_is_written_as_it_is() {
        let folder = folder(&[(
            "chat_template.jinja",
            "{{ messages[1].content | tojson }}".to_string(),
        )]);
        let template = ChatTemplate::of_folder(folder.path()).unwrap();
        assert_eq!(template.render(&conversation()).unwrap(), r#""Why \"<\"?""#);
    }

    #[test]
    fn what_is_wrong_with_a_template_is_said() {
        let empty = folder(&[]);
        let error = ChatTemplate::of_folder(empty.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("no chat template") && error.contains("tokenizer_config.json"),
            "{error}"
        );
        let broken = folder(&[("tokenizer_config.json", "{".to_string())]);
        let error = ChatTemplate::of_folder(broken.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("tokenizer_config.json"), "{error}");
        let refused = |template: &str| {
            let folder = folder(&[("chat_template.jinja", template.to_string())]);
            let template = ChatTemplate::of_folder(folder.path()).unwrap();
            let assistant = [Message::new("assistant", "hm")];
            template.render(&assistant).unwrap_err().to_string()
        };
        assert!(refused(TEMPLATE).contains("begin with the user"));
        let error = refused("\n{% for %}");
        assert!(
            error.contains("line 2") && error.contains("chat_template.jinja"),
            "{error}"
        );
    }
}
