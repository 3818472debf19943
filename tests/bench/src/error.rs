use std::{io, path::PathBuf, time::Duration};

use casemate_harness::LabError;
use casemate_hsm_pkcs11::Pkcs11Error;
use casemate_hsm_tpm::TpmError;
use casemate_keyd::KeydError;
use casemate_keyring::Refusal;
use casemate_phone::PhoneError;
use casemate_post::PostError;
use casemate_runtime::{config::ConfigError, control::ControlError, frame::FrameError};

/// Something did not work, so there is no number. A goal that is missed is none of these.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The lab.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A phone was not served as it must be.
    #[error("{device}: {source}")]
    Phone {
        /// Which.
        device: String,
        /// What it saw.
        #[source]
        source: Box<PhoneError>,
    },
    /// A phone ended without a certificate.
    #[error("{device} ended without a certificate; the audit trail of the bench's lab says why")]
    NotInstalled {
        /// Which.
        device: String,
    },
    /// No key could be made for a phone, or the trust list is not one.
    #[error("the load cannot be prepared: {0}")]
    Load(#[source] Box<PhoneError>),
    /// capf's control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// capf took no device.
    #[error("capf does not add phones: {0}")]
    NotAdded(String),
    /// The report of the power-on self-test.
    #[error(transparent)]
    Post(#[from] PostError),
    /// A token with nothing around it.
    #[error("the bare token: {0}")]
    Token(#[from] Pkcs11Error),
    /// The lab's TPM with nothing around it.
    #[error("the bare TPM: {0}")]
    Tpm(#[from] TpmError),
    /// The lab's settings file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// keyd's own settings.
    #[error(transparent)]
    Keyd(#[from] Box<KeydError>),
    /// keyd signs no handshake.
    #[error("keyd: {0}")]
    Refused(Refusal),
    /// A process told something else than what it was asked.
    #[error("an answer to another question: {0}")]
    WrongAnswer(String),
    /// A token that was pulled is still there, or one that was put back still away.
    #[error("keyd does not see within {limit:?} that its token went or came back")]
    NotSeen {
        /// How long it had.
        limit: Duration,
    },
    /// What one process of the bench told another is not what that one expects.
    #[error("between two processes of the bench: {0}")]
    Job(#[source] serde_json::Error),
    /// A program that a measurement needs.
    #[error("{program}: {output}")]
    Program {
        /// Which.
        program: String,
        /// What it printed.
        output: String,
    },
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The table cannot be printed.
    #[error("standard output: {0}")]
    Output(#[source] io::Error),
}

impl BenchError {
    /// For `map_err`: an error of the file at `path`.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// For `map_err`: an error of the phone `device`.
    pub(crate) fn phone(device: &str) -> impl FnOnce(PhoneError) -> Self {
        move |source| Self::Phone { device: device.to_owned(), source: Box::new(source) }
    }
}

impl From<FrameError> for BenchError {
    fn from(error: FrameError) -> Self {
        Self::Control(error.into())
    }
}
