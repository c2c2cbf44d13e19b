//! `prepare` beside Hugging Face tokenizers in Python, on the workspace's own sources.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use xshell::{Shell, cmd};

const SCRIPT: &str = "bench/prepare.py";
/// Bytes of text that are tokenized: the sources, again and again.
const BYTES: usize = 24 << 20;
/// Words of the tokenizer, which is learned from the same text.
const VOCAB: &str = "8192";

/// Writes text and tokenizer into `folder`, and gives the command that measures both programs on them in turn.
pub fn command<'a>(
    shell: &'a Shell,
    program: &Path,
    python: &str,
    folder: &Path,
) -> Result<xshell::Cmd<'a>, String> {
    let said = |error: xshell::Error| error.to_string();
    let listed = cmd!(shell, "git ls-files *.rs *.md")
        .quiet()
        .read()
        .map_err(said)?;
    let mut texts = String::new();
    for path in listed.lines() {
        let text = shell.read_file(path).map_err(said)?;
        // Writing to a string cannot fail.
        let _ = writeln!(texts, "{}", json!({ "text": text }));
    }
    if texts.is_empty() {
        return Err("the workspace has no sources that git knows of".to_owned());
    }
    let texts = texts.repeat(BYTES.div_ceil(texts.len()));
    let (data, tokenizer) = (folder.join("sources.jsonl"), folder.join("tokenizer.json"));
    shell.create_dir(folder).map_err(said)?;
    shell.write_file(&data, texts).map_err(said)?;
    shell.remove_path(&tokenizer).map_err(said)?;
    cmd!(
        shell,
        "{program} tokenizer train {data} --vocab {VOCAB} --out {tokenizer}"
    )
    .run()
    .map_err(said)?;
    Ok(cmd!(
        shell,
        "{python} {SCRIPT} {program} {tokenizer} {data}"
    ))
}
