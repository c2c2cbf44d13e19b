//! Why a device cannot be used.

use crate::table::compiled_in;

/// Why a device cannot be used. Each message is one line and says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// No row has the name.
    #[error(
        "device \"{name}\" is not known: {hint} (this build has {})",
        compiled_in()
    )]
    Unknown {
        /// What was typed.
        name: String,
        /// The nearest match, or all names.
        hint: String,
    },
    /// The number after the colon is not one, or the device takes none.
    #[error("device \"{text}\" is not allowed: {allowed}")]
    Index {
        /// What was typed.
        text: String,
        /// What would have been accepted.
        allowed: String,
    },
    /// The Cargo feature is missing.
    #[error(
        "device {name} is not compiled in: rebuild with --features {name} (this build has {})",
        compiled_in()
    )]
    NotCompiledIn {
        /// The device, and the feature.
        name: &'static str,
    },
    /// Nothing on this machine answers to it.
    #[error(
        "device {name} found no adapter: it needs {needs} (this build has {})",
        compiled_in()
    )]
    NoAdapter {
        /// The device.
        name: &'static str,
        /// What the machine lacks.
        needs: &'static str,
    },
    /// There are fewer than that.
    #[error("device {name}:{index} is not there: this machine has {count}, counted from {name}:0")]
    NoSuchIndex {
        /// The device.
        name: &'static str,
        /// What was asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The adapter is there, and its driver failed when it was opened.
    #[error("device {name} was found and could not be opened: {message}; it needs {needs}")]
    Broken {
        /// The device.
        name: &'static str,
        /// What the driver, or Burn, said.
        message: String,
        /// What the machine should have.
        needs: &'static str,
    },
    /// Another process or machine was to host it.
    #[error(
        "device remote:{address} cannot be used: {message}; it needs {}",
        crate::table::SERVER
    )]
    Remote {
        /// Where.
        address: String,
        /// What Burn said.
        message: String,
    },
    /// Devices cannot be hosted.
    #[error("cannot host devices: {message}")]
    Serve {
        /// Why.
        message: String,
    },
    /// The build has no device at all, or none that this machine has.
    #[error(
        "none of the compiled-in devices ({}) is on this machine: rebuild with --features flex for the CPU",
        compiled_in()
    )]
    None,
}
