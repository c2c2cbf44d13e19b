//! Headless Chromium, for the tests of pages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where it is set, a machine without Chromium fails the tests that need it.
const REQUIRED: &str = "HYBRIDNORM_REQUIRE_CHROMIUM";

/// Whom Chromium itself calls at every start, whatever the page.
pub const OWN: [&str; 3] = [
    "://update.googleapis.com/",
    "://clients2.google.com/",
    "://accounts.google.com/",
];

/// Headless Chromium, with nothing to fetch and nobody to call.
pub struct Browser {
    program: PathBuf,
    profile: tempfile::TempDir,
}

/// What Chromium made of a page.
pub struct Shown {
    /// The document after it was loaded.
    pub dom: String,
    /// What it complained about.
    pub complaints: Vec<String>,
    /// Every address that it asked for.
    pub asked: Vec<String>,
}

impl Browser {
    /// `None`, visibly, on a machine without it.
    pub fn find() -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let dirs: Vec<PathBuf> = std::env::split_paths(&paths).collect();
        let mut all = dirs
            .iter()
            .flat_map(|dir| names.iter().map(|name| dir.join(name)));
        match all.find(|path| path.is_file()) {
            Some(program) => Some(Self {
                program,
                profile: tempfile::tempdir().unwrap(),
            }),
            None => {
                assert!(
                    std::env::var_os(REQUIRED).is_none(),
                    "{REQUIRED} is set and there is no Chromium (Debian: chromium)"
                );
                println!("SKIPPED: no Chromium on this machine (Debian: chromium)");
                None
            }
        }
    }

    /// Chromium on its way to `address`, with a profile of its own.
    pub fn command(&self, address: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                // Of its own accord it asks Google what the fields of a form are for.
                "--disable-features=AutofillServerCommunication",
                "--enable-logging=stderr",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", self.profile.path().display()))
            .arg(format!("--log-net-log={}", self.log().display()))
            .arg(address)
            .stdin(Stdio::null());
        command
    }

    /// Where Chromium writes what it asked for.
    fn log(&self) -> PathBuf {
        self.profile.path().join("net.json")
    }

    fn run(&self, page: &Path, flags: &[String]) -> (String, String) {
        let mut command = self.command(&format!("file://{}", page.display()));
        let output = command.arg("--disable-gpu").args(flags).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{err}");
        (out, err)
    }

    /// Loads a page `width` pixels wide, in light or dark.
    pub fn show(&self, page: &Path, width: u32, dark: bool) -> Shown {
        let scheme = if dark { 0 } else { 1 };
        let flags = [
            "--dump-dom".to_string(),
            format!("--window-size={width},900"),
            format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        let (dom, err) = self.run(page, &flags);
        Shown {
            dom,
            complaints: complaints(&err),
            asked: self.asked(),
        }
    }

    /// Every address that Chromium asked for when it last ran.
    pub fn asked(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log()).unwrap();
        let addresses = log.split("\"url\":\"").skip(1);
        addresses
            .map(|rest| rest.split('"').next().unwrap().to_string())
            .collect()
    }

    /// A picture of the page: its pixels, as a file.
    pub fn picture(&self, page: &Path, width: u32, dark: bool) -> Vec<u8> {
        let file = self.profile.path().join("picture.png");
        let scheme = if dark { 0 } else { 1 };
        self.run(
            page,
            &[
                format!("--screenshot={}", file.display()),
                format!("--window-size={width},1600"),
                format!("--blink-settings=preferredColorScheme={scheme}"),
            ],
        );
        fs::read(file).unwrap()
    }
}

/// What pages complained about, in what Chromium wrote to standard error.
pub fn complaints(err: &str) -> Vec<String> {
    let lines = err.lines().filter(|line| line.contains(":CONSOLE"));
    lines.map(str::to_string).collect()
}
