//! `hybridnorm-train`: trains, plans and samples transformer language models with any norm placement.

fn main() -> std::process::ExitCode {
    hybridnorm_train::cli::main(std::env::args_os())
}
