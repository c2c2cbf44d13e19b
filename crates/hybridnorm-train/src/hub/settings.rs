//! What the environment says.

use std::env;
use std::path::PathBuf;

use super::error::HubError;

/// The server, the place for files, the token.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server, without a slash at its end.
    pub endpoint: String,
    /// The folder of all repositories.
    pub cache: PathBuf,
    /// What gives access to private and gated models.
    pub token: Option<String>,
    /// Why the network is not to be used, where it is not.
    pub offline: Option<&'static str>,
}

impl Settings {
    /// As the environment has it.
    ///
    /// # Errors
    /// When the server is no http(s) address, or there is no home directory.
    pub fn from_env() -> Result<Self, HubError> {
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_string());
        if !(endpoint.starts_with("https://") || endpoint.starts_with("http://")) {
            return Err(HubError::Variable {
                variable: "HF_ENDPOINT",
                value: endpoint,
                allowed: "an address that begins with https:// or http://",
            });
        }
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(env::home_dir()?.join(".cache").join("huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let token = text("HF_TOKEN").or_else(|| {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(home.as_ref()?.join("token")))?;
            let token = std::fs::read_to_string(file).ok()?.trim().to_string();
            (!token.is_empty()).then_some(token)
        });
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_string(),
            cache: cache.ok_or(HubError::NoHome)?,
            token,
            offline: ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
                .into_iter()
                .find(|variable| text(variable).is_some_and(|value| is_yes(&value))),
        })
    }
}

/// As `huggingface_hub` reads it.
fn is_yes(value: &str) -> bool {
    ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
}

fn text(variable: &str) -> Option<String> {
    let value = env::var(variable).ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_string())
}

fn path(variable: &str) -> Option<PathBuf> {
    env::var_os(variable)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}
