use std::{io, path::PathBuf};

use casemate_phonefile::PhoneFileError;
use casemate_post::PostError;
use casemate_runtime::{config::ConfigError, control::ControlError, frame::FrameError};

/// Why a command did nothing, or not all. One line; it says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// The settings cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The authentication string is none. What was given is not repeated.
    #[error(
        "the authentication string must be 4 to 10 digits, nothing else; for example: casemate phone add SEP001122334455 --string 0123456789"
    )]
    BadString,
    /// The daemon does not run, does not know this user, or broke off.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The key broker does not run.
    #[error("key broker at {path}: {source}; is casemate-keyd running?")]
    NoBroker {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key broker broke off: it does not know this user, or is of another release.
    #[error("key broker at {path} gave no answer; run this as root or as a user of [users]")]
    BrokerSilent {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: Option<FrameError>,
    },
    /// The daemon refused, or failed.
    #[error("{0}")]
    Refused(String),
    /// Provisioning stopped.
    #[error("{role}: {reason}; what was made is kept, run `casemate provision` again")]
    NotProvisioned {
        /// Where.
        role: String,
        /// Why.
        reason: String,
    },
    /// Nobody said yes.
    #[error("{role} is not re-keyed: nobody confirmed it; type the role's name when asked, or give --yes")]
    NotConfirmed {
        /// Which.
        role: String,
    },
    /// The old key is not retired yet.
    #[error("{role}: {reason}; the new key and certificate are kept, run `casemate identity rekey {role}` again")]
    RekeyWaits {
        /// Which.
        role: String,
        /// For what.
        reason: String,
    },
    /// The daemon answered another question.
    #[error("{0} answered another request; install the same release everywhere")]
    WrongAnswer(&'static str),
    /// A file that a daemon publishes cannot be read.
    #[error("{path}: {source}; {hint}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// The image's bill of materials is none.
    #[error("{path} is no bill of materials: {source}; the image is damaged")]
    NotMaterials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The published trust list is none.
    #[error("{path} is no trust list: {source}")]
    NotATrustList {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: PhoneFileError,
    },
    /// The published trust list is signed by somebody else, or was changed.
    #[error("the signature of the trust list does not hold: {0}; look at the log of casemate-ctlprovider")]
    TrustListNotSigned(String),
    /// The report of the self-test cannot be used.
    #[error(transparent)]
    Post(#[from] PostError),
    /// The self-test did not pass, or not in this boot.
    #[error("the power-on self-test has not passed: {0}")]
    NotPassed(String),
    /// The self-test can be run by root only.
    #[error("the power-on self-test must run as root: sudo casemate selftest run")]
    NotRoot,
    /// A token has nothing to say to an auditor. It is shown before, as the result that it is.
    #[error("unproven: {0}")]
    Unproven(String),
    /// A file that was named could not be written.
    #[error("cannot write {path}: {source}")]
    NotWritten {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program could not be run.
    #[error("cannot run {program}: {source}")]
    Program {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program that was run failed.
    #[error("{program} failed ({status}); what it printed says why")]
    ProgramFailed {
        /// Which.
        program: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What was exported of the audit trail is not all of it.
    #[error("the export is not whole: {0}")]
    TrailNotWhole(String),
    /// No PIN was entered. What was given is not repeated.
    #[error("no PIN was taken, and nothing was changed: {0}")]
    NoPin(String),
    /// The module under check broke its process.
    #[error(
        "the module {module} {how}, while this was tried: {step}{printed}; nothing else was touched by that; {left}; do not use the \
         module"
    )]
    ModuleBroke {
        /// Which.
        module: PathBuf,
        /// In which way.
        how: String,
        /// What was being tried.
        step: String,
        /// What it printed, if anything.
        printed: String,
        /// What is left of the check.
        left: String,
    },
    /// The check could not be made, or not to its end.
    #[error("the module {module} could not be checked: {reason}; {left}")]
    ModuleUnchecked {
        /// Which.
        module: PathBuf,
        /// Why.
        reason: String,
        /// What is left of the check.
        left: String,
    },
    /// The token does less than the roles need. It is shown before, as the result that it is.
    #[error("the token of {0} cannot carry every role; see above")]
    ModuleLacking(PathBuf),
    /// The module gave a wrong answer. It is shown before.
    #[error("the module {0} gave wrong answers, see above; do not use it for what they concern")]
    ModuleWrong(PathBuf),
    /// The result could not be printed.
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
    /// The result could not be written as JSON.
    #[error("cannot print as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl ConsoleError {
    /// 2 for wrong usage, 3 and 4 for what `hsm check` found, 1 for everything else.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::BadString => 2,
            Self::ModuleLacking(_) => 3,
            Self::ModuleWrong(_) | Self::ModuleBroke { .. } => 4,
            _ => 1,
        }
    }
}
