//! `hybridnorm-train`: trains, plans and samples transformer language models with any norm placement.

/// A training step allocates and frees the same few hundred megabytes again and again. The system's allocator gives them back and has
/// every page cleared anew, which took a fifth of a step's time (docs/performance.md); this one keeps them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's number for the milliseconds after which it gives back what is free; −1 for never.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> std::process::ExitCode {
    // SAFETY: sets a number, before any other thread exists.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, -1) };
    hybridnorm_train::cli::main(std::env::args_os())
}
