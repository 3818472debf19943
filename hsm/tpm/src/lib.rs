//! Keys in a TPM 2.0. The only crate that links `tss-esapi`, and so the TPM's C library (tpm2-tss).
//!
//! A TPM keeps few keys itself. It makes a key under its storage key and hands it out as a blob that no other TPM can open; the
//! blobs stand in a folder, two files a key, and are loaded again for use. The token is the folder and the TPM together.
//!
//! - The **storage key** is a P-256 primary of the owner hierarchy, made anew from a fixed template at each connection. Half of
//!   the hash in its name is the token's serial number: it lasts until the TPM is cleared, as the blobs do.
//! - The **PIN** opens one sealed object, which is under the TPM's dictionary-attack protection: a wrong PIN counts there, is
//!   never tried again from here, and none is tried that could lock the TPM. What was sealed are 256 random bits that authorize
//!   all keys; these are outside that protection, so that a lockout which somebody provokes stops no daemon that is logged in.
//! - Every command that authorizes goes through one HMAC session, salted with the storage key. Authorization values cross the bus
//!   encrypted or not at all, and a TPM in the place of the right one is told by the storage key's name.
//! - `backup: none` makes keys `fixedTPM` and `fixedParent`. `backup: wrapped` makes keys that can be duplicated to one new
//!   parent, the trusted wrapping key of the settings, by who knows the key's authorization; without that setting it is refused.
//! - One thread has the context, with a bounded queue before it. A call that hangs is given up; the thread goes on when the TPM
//!   answers, and until then the next ones are told that the token is busy, as they are while it makes an RSA key. What the TPM
//!   puts off is repeated for a bounded time, and what it has no room for is tried once more after the loaded keys were taken out.
//!
//! A TPM can also say that a key is its own and stays ([`TpmStore::attest`]); `hsm/attest` proves what it says, without a TPM.
//!
//! The TPM's answers are not believed: what it made is read back, its halves are tried against each other by the FIPS module, and
//! one wrong answer ends its use ([`HsmError::WrongAnswer`](casemate_hsm_api::HsmError::WrongAnswer)).
//!
//! The C library writes its own lines to the standard error output; `TSS2_LOG=all+none` in the unit's environment turns them off.
//!
//! Why not pure Rust: the tpm2-rs project's one crate, `tpm2`, has in its version 0.1.0 the types and `GetRandom`, and its
//! version 0.2.0 asks for Rust 1.100, newer than this workspace's (checked on 2026-11-23).
#![forbid(unsafe_code)]

mod attest;
mod capability;
mod connection;
mod endorsement;
mod error;
mod folder;
mod frame;
mod keys;
mod line;
mod login;
mod pin;
mod settings;
mod signature;
mod store;
mod template;
mod write;

pub use error::TpmError;
pub use settings::{TpmAddress, TpmSettings};
pub use store::TpmStore;
