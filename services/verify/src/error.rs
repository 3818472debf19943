use std::{io, path::PathBuf};

use casemate_hsm_attest::AttestError;
use casemate_pki::PkiError;

/// Why nothing is proven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// What was handed over is not true, or not enough.
    #[error("nothing is proven: {0}")]
    NotProven(#[from] AttestError),
    /// The node says so itself.
    #[error("nothing is proven: the node has no statement on its {role} key ({reason})")]
    Unproven {
        /// Whose key, as the node says.
        role: String,
        /// Why, as the node says.
        reason: String,
    },
    /// A file cannot be read.
    #[error("nothing is proven: {path} cannot be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("nothing is proven: {path} is no {what}: {detail}")]
    NoDocument {
        /// Which.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// Where and why.
        detail: String,
    },
    /// The certificate of the key cannot be read.
    #[error("nothing is proven: {path} is no certificate: {source}")]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// A file cannot be written. One that is there already is left as it is.
    #[error("{path} cannot be written: {source}")]
    NotWritten {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The FIPS module gave no random bytes.
    #[error("the FIPS module gave no random bytes")]
    Random,
    /// The result could not be printed.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}
