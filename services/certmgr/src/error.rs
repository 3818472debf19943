use std::{io, path::PathBuf};

use casemate_hsm_api::KeyRole;
use casemate_keyring::KeyringError;
use casemate_pki::PkiError;
use casemate_store::{StoreError, sqlx};

/// Why an identity has no certificate, or none that others can read. What was done before is kept; provisioning again goes on
/// from there.
#[derive(Debug, thiserror::Error)]
pub enum CertmgrError {
    /// The key broker did not make, find or use the key.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The certificate could not be built or read.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The records could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate that came back carries another key than the one it was made for; it is thrown away.
    #[error(
        "the new {role} certificate carries another key than the token's; nothing was recorded, see the log of casemate-keyd"
    )]
    WrongKey {
        /// Whose.
        role: KeyRole,
    },
    /// The broker's record of the public key is no public key.
    #[error("the key broker's record of the {role} key is damaged; restore the records of casemate-keyd")]
    DamagedKey {
        /// Whose.
        role: KeyRole,
    },
    /// A certificate is on record, and the broker made another key now although it should have known the old one.
    #[error(
        "the {role} certificate on record is for key {recorded}, the key broker now names {found}: restore the records of \
         casemate-keyd, phones trust the recorded key"
    )]
    KeyReplaced {
        /// Whose.
        role: KeyRole,
        /// SHA-256 of the recorded certificate's key.
        recorded: String,
        /// SHA-256 of what the broker has.
        found: String,
    },
    /// The re-key cannot begin, or go on.
    #[error("{role} is not re-keyed: {reason}")]
    RekeyRefused {
        /// Whose.
        role: KeyRole,
        /// Why, and what to wait for or do.
        reason: String,
    },
    /// This key is not to sign lists.
    #[error("{role} does not sign the lists: {reason}")]
    ListSignerRefused {
        /// Whose.
        role: KeyRole,
        /// Why, and what to wait for or do.
        reason: String,
    },
    /// No re-key of this role is under way.
    #[error("no re-key of {role} is under way; run `casemate identity rekey {role}`")]
    NoRekey {
        /// Whose.
        role: KeyRole,
    },
    /// A recorded role is none that this release knows.
    #[error("records name the role {0:?}, which this release does not know; install the release that wrote them")]
    UnknownRole(String),
    /// The certificate is recorded and could not be published.
    #[error("cannot publish {path}: {source}")]
    Publish {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<sqlx::Error> for CertmgrError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}
