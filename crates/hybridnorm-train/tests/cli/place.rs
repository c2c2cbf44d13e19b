//! What the tests of the program share: the binary, a folder of its own, a tiny model and a little text.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A folder with text (`text.md`) and the configuration of a tiny model (`tiny.toml`), where commands run.
pub struct Place {
    dir: TempDir,
}

/// What `tiny.toml` says beside its `[training]` and `[model]`.
const TINY: &str = r#"
[data]
path = "text.md"

[training]
steps = 6
seq = 16
batch = 2
micro_batch = 2
eval_every = 3
eval_sequences = 4
checkpoint_every = 2
keep_checkpoints = 0

[schedule]
lr = 0.01

[model]
vocab_size = 257
padded_vocab_size = 272
d_model = 16
n_layers = 2
n_heads = 2
n_kv_heads = 1
d_ff = 32
max_seq_len = 16
tied = true
"#;

/// What `sparse.toml` says beside that.
const SPARSE: &str = r#"
[sparse]
d_ff = 12
layers = "all"

[sparse.router]
n_experts = 4
top_k = 2

[sparse.losses]
balance = 0.01
z = 0.001
"#;

impl Place {
    pub fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        place.write("tiny.toml", TINY);
        place.write("sparse.toml", format!("{TINY}{SPARSE}"));
        let text: String = (0..400)
            .map(|n| format!("The square of {n} is {}.\n", n * n))
            .collect();
        place.write("text.md", &text);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// `tiny.toml` with `from` replaced by `to`, under another name.
    pub fn write_variant(&self, name: &str, from: &str, to: &str) {
        assert!(TINY.contains(from), "{from}");
        self.write(name, TINY.replacen(from, to, 1));
    }

    /// `sparse.toml` with `from` replaced by `to`, under another name.
    pub fn write_sparse_variant(&self, name: &str, from: &str, to: &str) {
        assert!(SPARSE.contains(from), "{from}");
        self.write(name, format!("{TINY}{}", SPARSE.replacen(from, to, 1)));
    }

    /// The program, about to run here on the CPU with `args`, split at spaces.
    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hybridnorm-train"));
        command
            .args(args.split_whitespace())
            .current_dir(self.dir.path())
            // Without it Mesa's Vulkan driver complains on standard error, on a machine that nobody is logged in to.
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &str) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that has to succeed and returns its standard output.
    pub fn succeed(&self, args: &str) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that has to be refused in one line with exit code 2, writing nothing, and returns that line.
    pub fn refuse(&self, args: &str) -> String {
        let before = listing(self.dir.path());
        let output = self.run(args);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args}: {message}");
        assert_eq!(message.lines().count(), 1, "{args}: {message}");
        assert!(message.starts_with("error: "), "{args}: {message}");
        assert_eq!(listing(self.dir.path()), before, "{args} wrote something");
        message
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every path below `dir`.
pub fn listing(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(dir).sort_by_file_name() {
        found.push(entry.unwrap().into_path());
    }
    found
}
