//! Keys in a PKCS#11 token. Below a daemon the only crate that links `cryptoki`, and so the only one that loads a token's C
//! library.
//!
//! What PKCS#11 shares among all of a process, this crate makes one of: one `C_Initialize` a module, however many of its
//! tokens are open; and for each token one login held by one session that does nothing else, and a bounded pool of sessions, each on a
//! thread of its own with one bounded queue before them. Every C call runs on such a thread and is given up after a limit, so
//! a token that hangs costs a thread and never a caller.
//!
//! The token's answers are not believed: what it generated is read back, its halves are tried against each other by the FIPS
//! module, and one wrong answer ends the use of the token ([`HsmError::WrongAnswer`](casemate_hsm_api::HsmError::WrongAnswer)).
//! Nothing here deletes a whole key, and nothing makes one because another is missing.
#![forbid(unsafe_code)]

mod call;
mod error;
mod keys;
mod login;
mod module;
mod pool;
mod public;
mod rate;
mod settings;
mod settled;
pub mod signature;
mod store;
mod template;
mod token;
mod watch;
mod worker;

pub use error::Pkcs11Error;
pub use public::curve;
pub use settings::{Backoff, Pkcs11Files, Pkcs11Settings, TokenName};
pub use store::Pkcs11Store;
