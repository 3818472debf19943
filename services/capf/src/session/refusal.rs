use casemate_hsm_api::KeyAlgorithm;

use crate::{
    device::BadDeviceName,
    protocol::{Command, ProtocolError, Reason},
};

/// Why a session ended without a certificate. The text is for the operator; the phone gets [`Refusal::told`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// No operator added the device.
    #[error("unknown device")]
    UnknownDevice,
    /// What the phone calls itself is no name, so nobody can have added it.
    #[error(transparent)]
    NoName(#[from] BadDeviceName),
    /// The device has no pending operation. Phones ask this at every start.
    #[error("no certificate operation is pending")]
    NothingToDo,
    /// The operation needs a string and the phone sent none.
    #[error("no authentication string was entered on the phone")]
    StringMissing,
    /// The string is wrong.
    #[error("wrong authentication string, {left} more before the operation is locked")]
    WrongString {
        /// Attempts that are left.
        left: u32,
    },
    /// Too many wrong strings.
    #[error("locked after too many wrong authentication strings; add the phone again")]
    Locked,
    /// The operation was ended or replaced while the string was looked at, so there was nothing to count it against.
    #[error("the operation was changed meanwhile; try again")]
    Changed,
    /// The operation ran out.
    #[error("the operation has expired; add the phone again")]
    Expired,
    /// Another session for this device is open.
    #[error("another session of this device is open")]
    Busy,
    /// The phone wants to prove itself by a certificate.
    #[error(
        "authentication by an existing certificate is not offered; use an authentication string or the null string"
    )]
    CertificateAuthentication,
    /// The phone speaks a version that does not exist.
    #[error("the phone speaks CAPF version {found}, versions 1 to 3 exist")]
    Version {
        /// Its version.
        found: u8,
    },
    /// An EC key is wanted and the phone's version has none (guide 2970: such a phone needs an RSA key).
    #[error("a {wanted} key needs CAPF version 3 and the phone speaks {version}; add the phone again with an RSA key")]
    KeyNeedsVersion3 {
        /// The operation's key.
        wanted: KeyAlgorithm,
        /// The phone's version.
        version: u8,
    },
    /// The phone made another key than it was asked for.
    #[error("the phone sent a key of {found}, {wanted} was asked for")]
    OtherKey {
        /// Asked for.
        wanted: KeyAlgorithm,
        /// Sent.
        found: KeyAlgorithm,
    },
    /// The public key is none.
    #[error("the phone's public key cannot be used: {0}")]
    UnusableKey(String),
    /// The operation has had certificates for too many keys.
    #[error("the operation has had {limit} certificates, none was confirmed; add the phone again")]
    TooManyKeys {
        /// The setting.
        limit: u32,
    },
    /// The phone says that a step failed on its side.
    #[error("the phone answered {command:?} with reason {reason}")]
    PhoneFailed {
        /// Its answer.
        command: Command,
        /// Its reason.
        reason: u8,
    },
    /// A message at the wrong time.
    #[error("{command:?} was not expected in step {step}")]
    Unexpected {
        /// What came.
        command: Command,
        /// When.
        step: &'static str,
    },
    /// A message of another session.
    #[error("a message of session {found} in session {expected}")]
    OtherSession {
        /// What came.
        found: u32,
        /// This session.
        expected: u32,
    },
    /// An element that the message must have is not in it.
    #[error("{command:?} lacks its {element}")]
    Lacks {
        /// The message.
        command: Command,
        /// The element.
        element: &'static str,
    },
    /// The bytes are no message.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The phone was silent, or never ended a message.
    #[error("silent in step {step}")]
    TimedOut {
        /// Which step.
        step: &'static str,
    },
    /// The phone closed, or the network broke.
    #[error("the phone closed the connection in step {step}")]
    Closed {
        /// Which step.
        step: &'static str,
    },
    /// Records or the signing key cannot be reached. Nothing is lost; the phone may try again.
    #[error("{0}")]
    Unavailable(String),
}

impl Refusal {
    /// The one map from refusals to reason codes of the wire (phone-formats §5).
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::UnknownDevice | Self::NoName(_) => Reason::UNKNOWN_DEVICE,
            Self::NothingToDo => Reason::NO_ACTION,
            _ => Reason::DECLINED,
        }
    }

    /// What the phone may show to its user; nothing where the reason code says it all. The inside of this server is none of
    /// the phone's business.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        match self {
            Self::UnknownDevice | Self::NoName(_) | Self::NothingToDo => None,
            Self::Unavailable(_) => Some("the server cannot issue certificates now; try again later".into()),
            other => Some(other.to_string()),
        }
    }
}
