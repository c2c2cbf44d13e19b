//! `cargo xtask web`: the page of `examples/web`, with models to try.
//!
//! The library is compiled to WebAssembly in a target directory of its own, the JavaScript around it is written, a model of each
//! placement is trained and exported, and everything is put into one folder that any web server can serve.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use xshell::{Shell, cmd};

use crate::device::Backend;
use crate::feature_set;
use crate::parity::absolute;
use crate::report::Report;
use crate::workspace::Workspace;

const TARGET: &str = "wasm32-unknown-unknown";
/// The folder with the source of the standard library, for a compiler that came without it for [`TARGET`].
const SOURCE: &str = "HYBRIDNORM_RUST_SRC";
/// Where the tests of the page look for it.
const PAGE: &str = "HYBRIDNORM_WEB_PAGE";
/// What `bind` calls the library; no folder without it is replaced.
const LIBRARY: &str = "hybridnorm_web_bg.wasm";
/// What the page needs of an exported folder.
const FILES: [&str; 4] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "model.safetensors",
];

#[derive(Args)]
pub struct WebArgs {
    /// The page's folder [default: web/page in the target directory]
    #[arg(long, value_name = "DIR", value_parser = absolute)]
    out: Option<PathBuf>,
    /// Placements to train a model of
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "hybrid-star,hybrid,pre,post"
    )]
    placements: Vec<String>,
    /// Steps of each training: the demo model, half a second a step on two cores
    #[arg(long, value_name = "N", default_value_t = 120)]
    steps: u32,
    /// Train with the program as `cargo xtask test` builds it for these devices [default: as `cargo run -p hybridnorm-train` does]
    #[arg(long = "device", value_name = "DEVICE", value_delimiter = ',')]
    devices: Vec<Backend>,
}

impl WebArgs {
    /// Little training, on the devices of the tests: enough to be held against `generate`.
    pub fn of_tests(devices: Vec<Backend>) -> Self {
        Self {
            out: None,
            placements: ["hybrid-star", "pre"].map(str::to_owned).to_vec(),
            steps: 24,
            devices,
        }
    }
}

/// Builds the page; what runs after this in `shell` finds it. `required`: where it cannot be built for want of a standard library, that is
/// a failure.
pub fn run(shell: &Shell, args: &WebArgs, required: bool) -> Result<Report, String> {
    let workspace = Workspace::read(shell)?;
    let work = workspace.target_directory.join("web");
    let out = args.out.clone().unwrap_or_else(|| work.join("page"));
    let mut report = Report::new("web");
    let std = match standard_library(shell) {
        Ok(std) => std,
        Err(hint) => {
            report.not_run("page", hint, required);
            report.print();
            return Ok(report);
        }
    };
    let program = workspace.program("hybridnorm-train");
    if !replaceable(&out) {
        let reason = format!("{} holds something else: give another --out", out.display());
        report.record("page", Err(reason));
    } else if build(shell, &mut report, &work, &std, &out)
        && models(shell, &mut report, args, &program, &work, &out)
    {
        report.note(format!("page {}", out.display()));
        shell.set_var(PAGE, &out);
    }
    report.print();
    Ok(report)
}

/// Where the standard library for [`TARGET`] comes from.
enum StandardLibrary {
    /// It came with the compiler.
    Ready,
    /// It is built from the compiler's own copy of its source.
    Build,
    /// It is built from this folder.
    BuildFrom(PathBuf),
}

/// As `rustup target add` installs it; otherwise from its source.
fn standard_library(shell: &Shell) -> Result<StandardLibrary, String> {
    let of = |arguments: &[&str]| {
        let path = cmd!(shell, "rustc {arguments...}").quiet().read();
        path.map(PathBuf::from).map_err(|error| error.to_string())
    };
    let ready = of(&["--print", "target-libdir", "--target", TARGET])?;
    if ready.is_dir() {
        return Ok(StandardLibrary::Ready);
    }
    let own = of(&["--print", "sysroot"])?.join("lib/rustlib/src/rust/library");
    if own.join("std").is_dir() {
        return Ok(StandardLibrary::Build);
    }
    match std::env::var_os(SOURCE).map(PathBuf::from) {
        Some(source) if source.join("std").is_dir() => Ok(StandardLibrary::BuildFrom(source)),
        Some(source) => Err(format!(
            "{SOURCE} is {}, which holds no std: expected the folder `library` of Rust's source",
            source.display()
        )),
        None => Err(format!(
            "no standard library for {TARGET}: rustup target add {TARGET}"
        )),
    }
}

/// The page without models. Tells whether it is there.
fn build(
    shell: &Shell,
    report: &mut Report,
    work: &Path,
    std: &StandardLibrary,
    out: &Path,
) -> bool {
    let cargo = |arguments: &[&str]| {
        // Its own, so that it neither waits for another build nor evicts one.
        cmd!(shell, "cargo build --release {arguments...}").env("CARGO_TARGET_DIR", work)
    };
    let mut arguments = vec!["-p", "hybridnorm-web", "--target", TARGET];
    if !matches!(std, StandardLibrary::Ready) {
        arguments.push("-Zbuild-std=std,panic_abort");
    }
    let mut library = cargo(&arguments).env(
        "RUSTFLAGS",
        "-C target-feature=+simd128 --cfg getrandom_backend=\"wasm_js\"",
    );
    if !matches!(std, StandardLibrary::Ready) {
        // The flag is one of nightly compilers.
        library = library.env("RUSTC_BOOTSTRAP", "1");
    }
    if let StandardLibrary::BuildFrom(source) = std {
        // Where cargo's own tests put the source, for want of another way to name it.
        library = library.env("__CARGO_TESTS_ONLY_SRC_ROOT", source);
    }
    let bind = cargo(&["-p", "hybridnorm-web-bind", "--features", "bind"]);
    if !report.step("library", library) || !report.step("bind", bind) {
        return false;
    }
    let compiled = work.join(TARGET).join("release/hybridnorm_web.wasm");
    let program = format!("hybridnorm-web-bind{}", std::env::consts::EXE_SUFFIX);
    let program = work.join("release").join(program);
    let bound = cmd!(shell, "{program} {compiled} {out}");
    report.record("folder", clear(out)) && report.step("JavaScript", bound) && {
        let page = shell.current_dir().join("examples/web/page");
        report.record("page", copy(&page, out))
    }
}

/// A model of each placement, in `out/models`. Those that were trained before are taken as they are.
fn models(
    shell: &Shell,
    report: &mut Report,
    args: &WebArgs,
    program: &Path,
    work: &Path,
    out: &Path,
) -> bool {
    let features = feature_set::of(&args.devices);
    let set: &[&str] = match args.devices.is_empty() {
        true => &["-p", "hybridnorm-train"],
        false => &["--workspace", "--features", &features],
    };
    let build = cmd!(
        shell,
        "cargo build --release {set...} --bin hybridnorm-train"
    );
    if !report.step("program", build) {
        return false;
    }
    let steps = args.steps.to_string();
    let mut index = Vec::new();
    for placement in &args.placements {
        let named = |what: &str| work.join(what).join(format!("{placement}-{steps}"));
        let (run, model) = (named("runs"), named("models"));
        if !model.join(FILES[0]).is_file() {
            // What a killed training left.
            let _ = fs::remove_dir_all(&run);
            let train = cmd!(
                shell,
                "{program} train --placement {placement} --steps {steps} --device flex --out {run}"
            );
            let export = cmd!(
                shell,
                "{program} export {run} --out {model} --dtype bf16 --device flex --force"
            );
            if !report.step(format!("train {placement}"), train)
                || !report.step(format!("export {placement}"), export)
            {
                return false;
            }
        }
        let address = format!("models/{placement}");
        let to = out.join(&address);
        let names: Vec<&str> = FILES
            .into_iter()
            .filter(|name| model.join(name).is_file())
            .collect();
        let copied = fs::create_dir_all(&to).and_then(|()| {
            let mut each = names.iter();
            each.try_for_each(|name| fs::copy(model.join(name), to.join(name)).map(drop))
        });
        if let Err(error) = copied {
            report.record(address, Err(error.to_string()));
            return false;
        }
        index.push(json!({"name": placement, "address": address, "names": names}));
    }
    let index = format!("{:#}\n", json!(index));
    let written = fs::write(out.join("models/index.json"), index);
    report.record("models", written.map_err(|error| error.to_string()))
}

/// Whether `out` may be overwritten: it is not there, empty, or a page from before.
fn replaceable(out: &Path) -> bool {
    let empty = fs::read_dir(out).map_or(true, |mut entries| entries.next().is_none());
    !out.is_file() && (empty || out.join(LIBRARY).is_file())
}

fn clear(out: &Path) -> Result<(), String> {
    let cleared = match out.is_dir() {
        true => fs::remove_dir_all(out),
        false => Ok(()),
    };
    let made = cleared.and_then(|()| fs::create_dir_all(out));
    made.map_err(|error| format!("{}: {error}", out.display()))
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", from.display());
    for entry in fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        fs::copy(entry.path(), to.join(entry.file_name())).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_is_replaced() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("page");
        assert!(replaceable(&out));
        clear(&out).unwrap();
        assert!(replaceable(&out));
        fs::write(out.join("thesis.tex"), "").unwrap();
        assert!(!replaceable(&out) && !replaceable(&out.join("thesis.tex")));
        fs::write(out.join(LIBRARY), "").unwrap();
        assert!(replaceable(&out));
        clear(&out).unwrap();
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
    }

    #[test]
    fn the_page_names_what_it_loads() {
        let place = tempfile::tempdir().unwrap();
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/web/page");
        copy(&page, place.path()).unwrap();
        let text = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
        let index = text("index.html");
        for name in ["page.css", "page.js"] {
            assert!(
                index.contains(name) && !text(name).contains("http"),
                "{name}"
            );
        }
        assert!(text("page.js").contains("worker.js"));
        assert!(text("worker.js").contains(&LIBRARY.replace("_bg.wasm", ".js")));
    }
}
