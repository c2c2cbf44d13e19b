//! The certificate: every compiled-in device against the shipped reference and against flex, and proof that it can fail.

mod injected;
mod parity;
mod routers;
