use std::{io, path::PathBuf};

use casemate_hsm_api::PinRefused;

/// Why no PIN is tried.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The PIN file, or one with another authorization, cannot be read.
    #[error("PIN file {path} cannot be read")]
    Unreadable {
        /// The PIN file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The PIN file could be read or changed by somebody else, or holds no PIN; what it holds is not used.
    #[error("PIN file {path} is not used: {detail}")]
    FileUnsafe {
        /// The PIN file.
        path: PathBuf,
        /// What is wrong with it, and what it has to be.
        detail: String,
    },
    /// No memory that is in no swap could be had.
    #[error(transparent)]
    Unlocked(PinRefused),
    /// The PIN file, or the one beside it, cannot be written or removed.
    #[error(
        "PIN file {path} cannot be replaced; keep it in a folder in which casemate-keyd may write, and which is nobody else's"
    )]
    NotWritten {
        /// The PIN file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The PIN comes from systemd, which alone can change it.
    #[error(
        "the PIN is the credential {path} of systemd, which casemate-keyd cannot write: put the PIN into a file of mode 0400 in a \
         folder of casemate-keyd, name that as pin-file, restart casemate-keyd and change the PIN; then make a credential of the \
         new one (systemd-creds encrypt) and take pin-file out again"
    )]
    Credential {
        /// The credential.
        path: PathBuf,
    },
    /// An earlier change of the PIN did not end, and either PIN may be the token's.
    #[error(
        "an earlier change of the PIN in {path} did not end; restart casemate-keyd, which finds out which PIN is the token's"
    )]
    Undecided {
        /// The PIN file.
        path: PathBuf,
    },
    /// The record of refused PINs cannot be read or written; without it no PIN is tried.
    #[error("the record of refused PINs {path} cannot be read or written, so no PIN is tried")]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The record of refused PINs is not one; without it no PIN is tried.
    #[error("the record of refused PINs {path} is damaged: {detail}; check the PIN, then remove the record")]
    RecordDamaged {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
}
