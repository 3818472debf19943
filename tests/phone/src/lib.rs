//! A simulated Cisco phone, from power-on to a certificate of its own.
//!
//! It fetches the trust list, takes the first one on trust and later ones only from signers that it knows, fetches and
//! verifies its configuration, asks TVS about certificates that the list does not hold, makes its keys, enrols at CAPF
//! and checks what it gets. Everything is verified with code of its own, written from `phone-formats.md`: this crate
//! depends on no other of the workspace, so that it shares no misunderstanding with the servers.
//!
//! [`play`] does all of it; each part can be used alone by the fault tests and benches.
#![forbid(unsafe_code)]

pub mod capf;
pub mod config;
pub mod error;
pub mod identity;
pub mod play;
pub mod state;
pub mod tls;
pub mod tlv;
pub mod transfer;
pub mod trust;
pub mod tvs;

pub use error::{PhoneError, Result};
