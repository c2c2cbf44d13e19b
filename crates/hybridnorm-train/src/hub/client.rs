//! What is asked of the server: the list of a commit's files, and a file from a byte on.

use std::io::Read;
use std::time::Duration;

use serde::Deserialize;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

use super::error::HubError;
use super::reference::Reference;
use super::settings::Settings;

/// A list of files longer than this is refused: the Hub's largest have some 10 MB.
const MAX_LIST: u64 = 64 << 20;
/// A server that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// A commit of a repository.
#[derive(Debug, Clone, Deserialize)]
pub struct Commit {
    /// Its hash.
    pub sha: String,
    /// Its files.
    #[serde(default)]
    pub siblings: Vec<RemoteFile>,
}

/// A file of a commit.
#[derive(Debug, Clone, Deserialize)]
pub struct RemoteFile {
    /// Its path in the repository.
    #[serde(rename = "rfilename")]
    pub name: String,
    /// Bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// The hash by which git knows it.
    #[serde(default, rename = "blobId")]
    pub blob: Option<String>,
    /// Where it is a large one.
    #[serde(default)]
    pub lfs: Option<LargeFile>,
}

/// What git knows of a large file.
#[derive(Debug, Clone, Deserialize)]
pub struct LargeFile {
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
}

/// A connection to the server.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// An answer that did not come, or not as it should.
#[derive(Debug)]
pub enum Failure {
    /// No connection: what the system said.
    Connection(String),
    /// A definite answer.
    Refused(HubError),
}

impl Client {
    pub fn new(settings: &Settings) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .user_agent(concat!("hybridnorm-train/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self {
            agent,
            endpoint: settings.endpoint.clone(),
            token: settings.token.clone(),
        }
    }

    /// The commit behind a revision, with its files.
    pub fn commit(&self, reference: &Reference) -> Result<Commit, Failure> {
        let revision = reference.revision.replace('/', "%2F");
        let repository = reference.repository();
        let url = format!(
            "{}/api/models/{repository}/revision/{revision}?blobs=true",
            self.endpoint
        );
        let answer = self.get(&url, None)?;
        if answer.status() != StatusCode::OK {
            return Err(Failure::Refused(self.refusal(reference, &url, &answer)));
        }
        let odd = |answer: String| {
            Failure::Refused(HubError::Answer {
                url: url.clone(),
                answer,
            })
        };
        let mut body = answer.into_body();
        let text = body.with_config().limit(MAX_LIST).read_to_vec();
        let text = text.map_err(|error| Failure::Connection(error.to_string()))?;
        let commit: Commit = serde_json::from_slice(&text)
            .map_err(|error| odd(format!("no list of files: {error}")))?;
        if !is_hash(&commit.sha) {
            return Err(odd(format!("a commit called \"{}\"", commit.sha)));
        }
        Ok(commit)
    }

    /// The address of a file.
    pub fn url(&self, reference: &Reference, commit: &str, file: &str) -> String {
        format!(
            "{}/{}/resolve/{commit}/{file}",
            self.endpoint,
            reference.repository()
        )
    }

    /// The bytes of a file from `start` on, or from its beginning where the server cannot skip; and where they begin.
    pub fn read(
        &self,
        reference: &Reference,
        url: &str,
        start: u64,
    ) -> Result<(u64, impl Read + use<>), Failure> {
        let answer = self.get(url, (start > 0).then_some(start))?;
        let begins = match answer.status() {
            StatusCode::OK => Some(0),
            StatusCode::PARTIAL_CONTENT => header(&answer, "content-range").and_then(|range| {
                range
                    .strip_prefix("bytes ")?
                    .split_once('-')?
                    .0
                    .parse()
                    .ok()
            }),
            // What is there is not a part of the file.
            StatusCode::RANGE_NOT_SATISFIABLE if start > 0 => {
                return self.read_whole(reference, url);
            }
            _ => return Err(Failure::Refused(self.refusal(reference, url, &answer))),
        };
        match begins {
            Some(begins) if begins == start || begins == 0 => {
                Ok((begins, answer.into_body().into_reader()))
            }
            _ => Err(Failure::Refused(HubError::Answer {
                url: url.to_string(),
                answer: format!("another part of the file than that from byte {start} on"),
            })),
        }
    }

    fn read_whole(
        &self,
        reference: &Reference,
        url: &str,
    ) -> Result<(u64, ureq::BodyReader<'static>), Failure> {
        let answer = self.get(url, None)?;
        match answer.status() {
            StatusCode::OK => Ok((0, answer.into_body().into_reader())),
            _ => Err(Failure::Refused(self.refusal(reference, url, &answer))),
        }
    }

    fn get(&self, url: &str, start: Option<u64>) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if let Some(start) = start {
            request = request.header("Range", format!("bytes={start}-"));
        }
        request
            .call()
            .map_err(|error| Failure::Connection(error.to_string()))
    }

    /// What a status other than success means.
    fn refusal(&self, reference: &Reference, url: &str, answer: &Response<Body>) -> HubError {
        let (reference, endpoint) = (Box::new(reference.clone()), self.endpoint.clone());
        let status = answer.status();
        match (status.as_u16(), header(answer, "x-error-code")) {
            (_, Some("RevisionNotFound")) => HubError::NoRevision {
                reference,
                endpoint,
            },
            (_, Some("GatedRepo")) | (403, _) => HubError::Forbidden {
                reference,
                endpoint,
                status: status.as_u16(),
            },
            // The Hub says so to strangers, whether a repository is private or does not exist.
            (401 | 404, _) => HubError::NoModel {
                reference,
                endpoint,
            },
            _ => HubError::Answer {
                url: url.to_string(),
                answer: format!("with status {status}"),
            },
        }
    }
}

fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Whether `text` is a hash in hexadecimal; it becomes part of a path.
pub fn is_hash(text: &str) -> bool {
    (40..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}
