//! Ctrl-C, SIGTERM and SIGHUP.

use burn::train::Interrupter;

use super::error::TrainError;

/// Makes the first Ctrl-C (or SIGTERM, SIGHUP) ask `interrupter` to stop after the step in progress, with a
/// checkpoint; a second one ends the process at once, with exit code 130. Call it once per process.
///
/// # Errors
/// When the system refuses, or another handler is already in place.
pub fn interrupt_on_signals(interrupter: &Interrupter) -> Result<(), TrainError> {
    let interrupter = interrupter.clone();
    ctrlc::set_handler(move || {
        if interrupter.should_stop() {
            std::process::exit(130);
        }
        interrupter.stop(Some("interrupted"));
    })?;
    Ok(())
}
