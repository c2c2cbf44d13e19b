//! Where cargo put what it built: `--message-format=json`.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The executable of a target, by its name and kind (`bin` or `test`).
///
/// A program that was built as itself, not as a harness of its own unit tests, comes without a hash in
/// its name; `--test NAME` builds no such harness.
pub fn executable(messages: &str, name: &str, kind: &str) -> Result<PathBuf, String> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| {
            let target = message.target.as_ref();
            target.is_some_and(|target| {
                target.name == name && target.kind.iter().any(|other| other == kind)
            })
        })
        .find_map(|message| message.executable)
        .ok_or_else(|| format!("cargo built no {kind} `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_found_by_name_and_kind() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"pack","kind":["lib"]},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"pack","kind":["test"]},"executable":"/t/pack-1a"}
{"reason":"compiler-artifact","target":{"name":"train","kind":["bin"]},"executable":"/t/train"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "pack", "test"),
            Ok(PathBuf::from("/t/pack-1a"))
        );
        assert_eq!(
            executable(messages, "train", "bin"),
            Ok(PathBuf::from("/t/train"))
        );
        for (name, kind) in [("pack", "lib"), ("train", "test"), ("other", "bin")] {
            assert!(executable(messages, name, kind).is_err(), "{name} {kind}");
        }
    }
}
