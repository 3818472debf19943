//! PINs of tokens, whatever their kind: the files in which they stand, and the memory of those that a token refused.
//!
//! A token counts wrong PINs and locks itself after a few, and a daemon that is started again and again with a wrong one would
//! do that within seconds. So a login has an order, which `hsm/pkcs11` and `hsm/tpm` keep: the token's own warnings and the
//! [`Refusals`] first, then the mark on disk, and only then the token sees the PIN.
#![forbid(unsafe_code)]

mod acl;
mod error;
mod file;
mod next;
mod refusal;

pub use error::PinError;
pub use file::{WrittenPin, is_credential, read_pin};
pub use next::NextPin;
pub use refusal::{Mark, Refusals, Verdict};
