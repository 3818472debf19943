//! Security modes, and the TLS profile that follows from each.
#![forbid(unsafe_code)]

mod mode;
mod tls;

pub use mode::Mode;
pub use tls::{PolicyError, TlsProfile};
