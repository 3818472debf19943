use std::{io, path::PathBuf};

use casemate_hsm_api::KeyRole;
use casemate_keyring::KeyringError;
use casemate_phonefile::PhoneFileError;
use casemate_pki::PkiError;
use casemate_runtime::control::ControlError;

/// Why a file was not built. What is published stays, and the building is tried again.
#[derive(Debug, thiserror::Error)]
pub enum CtlproviderError {
    /// The key broker did not sign.
    #[error("{file} not signed: {source}")]
    Sign {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: KeyringError,
    },
    /// The published list names none of the keys that could sign the next one: phones would refuse it, unless TVS vouches for it.
    #[error(
        "{file}: phones that hold the published list know neither the ITLRecovery nor the CallManager certificate of today, and \
         would refuse a list signed by either; restore the records of casemate-certmgr, or remove {file} to begin anew, which \
         phones take only if TVS vouches for its signer"
    )]
    NoKnownSigner {
        /// The file.
        file: String,
    },
    /// The content is none that phones take, or the signature that came back does not verify.
    #[error("{file}: {source}")]
    Content {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: PhoneFileError,
    },
    /// A published certificate is none; the one before it is used on.
    #[error("the published {role} certificate cannot be read: {source}; is casemate-certmgr of this release?")]
    Certificate {
        /// Whose.
        role: KeyRole,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// A published certificate is no PEM; the one before it is used on.
    #[error("the published {role} certificate is no PEM: {source}")]
    Pem {
        /// Whose.
        role: KeyRole,
        /// Why.
        #[source]
        source: pem::PemError,
    },
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// CAPF cannot be asked for its devices.
    #[error("devices: {0}")]
    Capf(#[from] ControlError),
    /// CAPF did not say which devices changed.
    #[error("devices: casemate-capf refused: {0}")]
    CapfRefused(String),
    /// CAPF answered another question: two releases are mixed.
    #[error("devices: casemate-capf answered another request; install the same release everywhere")]
    WrongAnswer,
}

impl CtlproviderError {
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
