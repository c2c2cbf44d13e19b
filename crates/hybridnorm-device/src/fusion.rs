//! Kernel fusion: compiled in by a Cargo feature, and switched off for a whole process by an environment variable.

/// Burn's variable: after so many explorations a stream runs unfused; with 0 it always does (`burn-std`, `config/base.rs`).
pub const SWITCH: &str = "BURN_FUSION_MAX_EXPLORATIONS";

/// Whether this build has kernel fusion.
pub const fn is_compiled_in() -> bool {
    cfg!(feature = "fusion")
}

/// Whether this build times kernel variants on the device and keeps the fastest.
pub const fn is_autotuned() -> bool {
    cfg!(feature = "autotune")
}

/// Whether kernels are fused in this process, on devices that compile kernels.
pub fn is_on() -> bool {
    is_compiled_in() && std::env::var(SWITCH).as_deref() != Ok("0")
}
