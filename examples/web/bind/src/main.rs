//! Writes the JavaScript around the compiled library: `bind LIBRARY.wasm FOLDER`. `cargo xtask web` calls it.

use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, folder] = &arguments[..] else {
        eprintln!("bind: expected LIBRARY.wasm FOLDER");
        return ExitCode::from(2);
    };
    let mut bindgen = Bindgen::new();
    let bound = bindgen
        .input_path(library)
        .typescript(false)
        // The library lies beside the JavaScript.
        .omit_default_module_path(false)
        // Names of functions are a tenth of the file and more, and only a debugger reads them.
        .remove_name_section(true)
        .remove_producers_section(true)
        .web(true)
        .and_then(|bindgen| bindgen.generate(folder));
    match bound {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bind: {library}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
