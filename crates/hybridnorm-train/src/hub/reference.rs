//! The name of a model on the Hub.

use std::fmt;

use super::error::HubError;

/// What a reference begins with.
pub const SCHEME: &str = "hf:";

/// `hf:owner/name[@revision]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The user or organisation.
    pub owner: String,
    /// The repository.
    pub name: String,
    /// A branch, a tag or a commit; `main` unless given.
    pub revision: String,
}

impl Reference {
    /// Reads `spec`; `None` where it is a path.
    ///
    /// # Errors
    /// When it begins with `hf:` and goes on otherwise than a reference does.
    pub fn parse(spec: &str) -> Result<Option<Self>, HubError> {
        let Some(rest) = spec.strip_prefix(SCHEME) else {
            return Ok(None);
        };
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let parts = repository.split_once('/');
        let parts = parts.filter(|(owner, name)| is_plain(owner) && is_plain(name));
        let Some((owner, name)) = parts.filter(|_| revision.split('/').all(is_plain)) else {
            return Err(HubError::BadReference {
                spec: spec.to_string(),
            });
        };
        Ok(Some(Self {
            owner: owner.to_string(),
            name: name.to_string(),
            revision: revision.to_string(),
        }))
    }

    /// `owner/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}@{}", self.owner, self.name, self.revision)
    }
}

/// Letters, digits, `-`, `_` and `.`, but neither `..` nor a dot in front: it becomes part of paths and addresses.
fn is_plain(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && !text.starts_with('.') && !text.contains("..") && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("hf:allenai/OLMo-2-0425-1B", "hf:allenai/OLMo-2-0425-1B@main")]
    #[case("hf:a/b@refs/pr/1", "hf:a/b@refs/pr/1")]
    #[case("hf:a/b@v1.0", "hf:a/b@v1.0")]
    fn references_are_read(#[case] spec: &str, #[case] shown: &str) {
        let found = Reference::parse(spec).unwrap().unwrap();
        assert_eq!(found.to_string(), shown);
    }

    #[test]
    fn all_else_is_a_path() {
        for path in ["hf", "./hf:a/b", "models/a", "", "/hf:/x"] {
            assert_eq!(Reference::parse(path).unwrap(), None);
        }
    }

    #[rstest]
    #[case("hf:gpt2")]
    #[case("hf:a/b/c")]
    #[case("hf:../b")]
    #[case("hf:a/..")]
    #[case("hf:a/b@")]
    #[case("hf:a/b@../../x")]
    #[case("hf:a/b?c")]
    #[case("hf:/b")]
    #[case("hf:")]
    fn what_is_none_is_refused(#[case] spec: &str) {
        let error = Reference::parse(spec).unwrap_err().to_string();
        assert!(
            error.contains(spec) && error.contains("hf:owner/name"),
            "{error}"
        );
    }
}
