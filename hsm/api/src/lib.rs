//! Keys that live in hardware, seen from the outside: what a key is for, how it is made, what it may do, and every way in
//! which a token can fail; and the judgment of what it signed. Nothing here talks to a token; the backends beside it do.
#![forbid(unsafe_code)]

mod der;
mod error;
mod key;
mod pin;
mod rate;
mod role;
mod scheme;
mod store;
mod unlock;
mod verify;

pub use der::ecdsa_der;
pub use error::HsmError;
pub use key::{Backup, KeyAlgorithm, KeyId, KeySpec, PublicKey};
pub use pin::{PIN_LIMIT, Pin, PinRefused};
pub use rate::{SignatureRate, TimedCalls};
pub use role::{KeyRole, UnknownRole};
pub use scheme::{Hash, Padding, SignatureScheme};
pub use store::{Continuation, KeyState, KeyStore, LoginState, RunBy, StoredKey, TokenInfo};
pub use unlock::Unlock;
pub use verify::verification;
