//! Keys that live in hardware, seen from the outside: what a key is for, how it is made, what it may do, and every way in
//! which a token can fail; and the judgment of what it signed. Nothing here talks to a token; `hsm/pkcs11` and `hsm/fake` do.
#![forbid(unsafe_code)]

mod error;
mod key;
mod rate;
mod role;
mod scheme;
mod store;
mod verify;

pub use error::HsmError;
pub use key::{Backup, KeyAlgorithm, KeyId, KeySpec, PublicKey};
pub use rate::SignatureRate;
pub use role::{KeyRole, UnknownRole};
pub use scheme::{Hash, Padding, SignatureScheme};
pub use store::{KeyState, KeyStore, LoginState, Pin, StoredKey, TokenInfo};
pub use verify::verification;
