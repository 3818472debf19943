//! Identity certificates. Provisioning goes role by role: the key broker makes the key (or says which one is on record), the
//! key signs its own certificate, the certificate is recorded and then published. Each step looks first at what is there, so
//! that a provisioning that was interrupted anywhere and is run again ends with one key and one certificate a role.
//!
//! A key that is on record and not in the token is reported and never replaced: phones trust that key and no other. What replaces
//! one is [`rekey`], which an operator asks for after he was shown what it means.
#![forbid(unsafe_code)]

mod control;
mod error;
mod identity;
mod manager;
mod records;
pub mod rekey;
mod settings;

pub use control::{FinishedRekey, Identity, Provisioned, Request, Response};
pub use error::CertmgrError;
pub use manager::{Folders, Manager};
pub use records::Records;
pub use settings::{CertmgrSettings, RekeySettings};
