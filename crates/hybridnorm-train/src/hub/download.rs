//! Downloads that go on where they broke off.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ring::digest::{Context, SHA256};

use super::Want;
use super::cache::{self, CONFIG, EXTRAS, INDEX, Repository, SINGLE};
use super::client::{Client, Commit, Failure, RemoteFile, is_hash};
use super::error::HubError;
use super::reference::Reference;
use super::settings::Settings;

/// Tries in a row that bring nothing new.
const TRIES: u32 = 5;

/// The Hub, or a mirror of it.
#[derive(Debug)]
pub struct Hub {
    settings: Settings,
    client: Client,
    /// Between two tries at first; each further pause is twice as long.
    pause: Duration,
}

impl Hub {
    /// The server and the place for files that `settings` name.
    pub fn new(settings: Settings) -> Self {
        let client = Client::new(&settings);
        Self {
            settings,
            client,
            pause: Duration::from_secs(1),
        }
    }

    /// Waits so long between two tries at first, and twice as long before each further one.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// The folder of the model, which holds what is wanted of it. Where the server cannot be reached, what is kept of the revision has
    /// to do, with a warning.
    ///
    /// # Errors
    /// When it is not kept and cannot be had, or a file system refuses.
    pub fn fetch(&self, reference: &Reference, want: Want) -> Result<PathBuf, HubError> {
        let repository = Repository::new(&self.settings.cache, reference);
        if let Some(variable) = self.settings.offline {
            let reason = format!("{variable} forbids asking {}", self.settings.endpoint);
            return self.kept(&repository, reference, want, reason);
        }
        // The name of a commit stands for the same files for ever.
        let kept = repository.snapshot(&reference.revision);
        if is_hash(&reference.revision) && cache::is_whole(&kept, want) {
            return Ok(kept);
        }
        match self.client.commit(reference) {
            Ok(commit) => self.download(&repository, reference, &commit, want),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Connection(reason)) => {
                let reason = format!("{} cannot be reached: {reason}", self.settings.endpoint);
                let dir = self.kept(&repository, reference, want, reason.clone())?;
                say(&format!(
                    "warning: {reason}; using the copy in {}",
                    dir.display()
                ));
                Ok(dir)
            }
        }
    }

    /// What is kept of the revision.
    fn kept(
        &self,
        repository: &Repository,
        reference: &Reference,
        want: Want,
        reason: String,
    ) -> Result<PathBuf, HubError> {
        let commit = repository.known_commit(&reference.revision);
        let dir = commit.map(|commit| repository.snapshot(&commit));
        dir.filter(|dir| cache::is_whole(dir, want))
            .ok_or_else(|| HubError::Unreachable {
                reference: Box::new(reference.clone()),
                cache: self.settings.cache.clone(),
                reason,
                endpoint: self.settings.endpoint.clone(),
            })
    }

    fn download(
        &self,
        repository: &Repository,
        reference: &Reference,
        commit: &Commit,
        want: Want,
    ) -> Result<PathBuf, HubError> {
        let missing = |missing| HubError::NoFile {
            reference: Box::new(reference.clone()),
            missing,
            found: listed(commit),
        };
        let find = |name: &str| commit.siblings.iter().find(|file| file.name == name);
        let fetch = |file: &RemoteFile| self.file(repository, reference, &commit.sha, file);
        let dir = repository.snapshot(&commit.sha);
        fetch(find(CONFIG).ok_or_else(|| missing(CONFIG))?)?;
        if want == Want::Model {
            // Small ones first: what is wrong with them shows before gigabytes have come.
            let mut extras = EXTRAS.iter().filter_map(|name| find(name));
            extras.try_for_each(fetch)?;
            if let Some(single) = find(SINGLE) {
                fetch(single)?;
            } else {
                let index = find(INDEX)
                    .ok_or_else(|| missing("model.safetensors or model.safetensors.index.json"))?;
                fetch(index)?;
                let names = cache::shards(&dir).ok_or_else(|| HubError::Damaged {
                    url: self.client.url(reference, &commit.sha, INDEX),
                    problem: "it is no index of safetensors files".to_string(),
                })?;
                for name in names {
                    fetch(find(&name).ok_or_else(|| missing("file that its index names"))?)?;
                }
            }
        }
        repository.note_commit(&reference.revision, &commit.sha)?;
        Ok(dir)
    }

    /// Brings one file, unless it is there.
    fn file(
        &self,
        repository: &Repository,
        reference: &Reference,
        commit: &str,
        file: &RemoteFile,
    ) -> Result<(), HubError> {
        let url = self.client.url(reference, commit, &file.name);
        let path = repository.snapshot(commit).join(&file.name);
        let lfs = file.lfs.as_ref().map(|lfs| &lfs.sha256);
        let (Some(id), Some(size)) = (
            lfs.or(file.blob.as_ref()).filter(|id| is_hash(id)),
            file.size,
        ) else {
            let answer = format!("without the size and hash of {}", file.name);
            return Err(HubError::Answer { url, answer });
        };
        let has_size = |path: &Path| fs::metadata(path).is_ok_and(|found| found.len() == size);
        if has_size(&path) {
            return Ok(());
        }
        let _lock = lock(&repository.lock(id))?;
        let blob = repository.blob(id);
        if !has_size(&blob) {
            let part = repository.blob(&format!("{id}.incomplete"));
            if let Some(parent) = part.parent() {
                fs::create_dir_all(parent).map_err(HubError::io("create", parent))?;
            }
            self.transfer(reference, &url, &part, size, &file.name)?;
            verify(&url, &part, size, lfs)?;
            fs::rename(&part, &blob).map_err(HubError::io("rename", &part))?;
        }
        repository.link(commit, &file.name, id)
    }

    /// Completes `part`, which may hold the beginning of the file.
    fn transfer(
        &self,
        reference: &Reference,
        url: &str,
        part: &Path,
        size: u64,
        name: &str,
    ) -> Result<(), HubError> {
        let failed = |action| HubError::io(action, part);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(part)
            .map_err(failed("open"))?;
        let mut got = file.metadata().map_err(failed("read"))?.len();
        let bar = bar(name, got, size);
        let mut tries = 0;
        while got != size {
            if got > size {
                file.set_len(0).map_err(failed("empty"))?;
                got = 0;
            }
            let before = got;
            let reason = match self.client.read(reference, url, got) {
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Connection(reason)) => reason,
                Ok((begins, mut body)) => {
                    if begins != got {
                        file.set_len(begins).map_err(failed("empty"))?;
                        got = begins;
                    }
                    let (bytes, end) =
                        append(&mut body, &mut file, size - got, &bar).map_err(failed("write"))?;
                    got += bytes;
                    end
                }
            };
            if got == size {
                break;
            }
            tries = if got > before { 1 } else { tries + 1 };
            if tries >= TRIES {
                let url = url.to_string();
                return Err(HubError::BrokenOff {
                    url,
                    got,
                    size,
                    reason,
                });
            }
            say(&format!(
                "warning: {name} broke off after {got} of {size} bytes ({reason}); going on"
            ));
            std::thread::sleep(self.pause * 2u32.pow(tries - 1));
        }
        bar.finish_and_clear();
        file.sync_all().map_err(failed("write"))
    }
}

/// Copies at most `most` bytes. Tells how many there were, and why no more.
fn append(
    body: &mut impl Read,
    file: &mut File,
    most: u64,
    bar: &ProgressBar,
) -> io::Result<(u64, String)> {
    let mut buffer = vec![0; 1 << 18];
    let mut copied = 0;
    loop {
        let room = usize::try_from(most - copied)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        match body.read(&mut buffer[..room]) {
            Ok(0) => return Ok((copied, "the server closed the connection".to_string())),
            Ok(n) => {
                file.write_all(&buffer[..n])?;
                copied += n as u64;
                bar.inc(n as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok((copied, error.to_string())),
        }
    }
}

/// Holds a file against its announced size and, where it is a large one, its hash; removes it where it differs.
fn verify(url: &str, part: &Path, size: u64, sha256: Option<&String>) -> Result<(), HubError> {
    let problem = match (
        fs::metadata(part)
            .map_err(HubError::io("read", part))?
            .len(),
        sha256,
    ) {
        (found, _) if found != size => Some(format!("{found} bytes instead of {size}")),
        (_, Some(expected)) => {
            let found = hash(part).map_err(HubError::io("read", part))?;
            (!found.eq_ignore_ascii_case(expected))
                .then(|| format!("its SHA-256 is {found} instead of {expected}"))
        }
        _ => None,
    };
    let Some(problem) = problem else {
        return Ok(());
    };
    fs::remove_file(part).map_err(HubError::io("remove", part))?;
    let url = url.to_string();
    Err(HubError::Damaged { url, problem })
}

/// SHA-256 of a file, in hexadecimal.
fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    let bytes = context.finish();
    Ok(bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Waits until no other process writes the same file.
fn lock(path: &Path) -> Result<File, HubError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(HubError::io("create", parent))?;
    }
    let file = File::create(path).map_err(HubError::io("create", path))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            say("waiting for another process that downloads the same file");
            file.lock().map_err(HubError::io("lock", path))?;
        }
        // A file system without locks is no reason not to use it.
        Ok(()) | Err(TryLockError::Error(_)) => {}
    }
    Ok(file)
}

/// What a repository has instead of what is missing.
fn listed(commit: &Commit) -> String {
    let names: Vec<&str> = commit
        .siblings
        .iter()
        .map(|file| file.name.as_str())
        .collect();
    match names.len() {
        0 => "no files".to_string(),
        n if n > 8 => format!("{} and {} more", names[..8].join(", "), n - 8),
        _ => names.join(", "),
    }
}

/// Progress on standard error, where that is a terminal; a line for a large file where not.
fn bar(name: &str, got: u64, size: u64) -> ProgressBar {
    let bar = ProgressBar::new(size)
        .with_message(name.to_string())
        .with_position(got);
    let style = "{msg} {wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    if bar.is_hidden() && size >= 1 << 20 {
        say(&format!(
            "downloading {name}, {} MB",
            size.div_ceil(1 << 20)
        ));
    }
    bar
}

/// A line on standard error. Where that is gone, nobody is there to read it.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
