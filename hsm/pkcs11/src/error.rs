use std::{io, path::PathBuf};

use casemate_hsm_api::{HsmError, Unlock};
use casemate_hsm_pin::PinError;
use cryptoki::error::{Error, RvError};

/// Why a token could not be opened, beyond what the token itself says ([`HsmError`]).
#[derive(Debug, thiserror::Error)]
pub enum Pkcs11Error {
    /// The module is not there, is no PKCS#11 module, or refused to start.
    #[error("PKCS#11 module {path} does not start: {detail}")]
    Module {
        /// The module's file.
        path: PathBuf,
        /// What the loader or the module said.
        detail: String,
    },
    /// A store for this token of this module is open in this process already, or a call of a closed one still hangs in the
    /// module. A token has one login in a process, so two stores would log each other out.
    #[error("token {token} of PKCS#11 module {path} is in use in this process already")]
    AlreadyOpen {
        /// The module's file.
        path: PathBuf,
        /// The token's label, serial number, or both.
        token: String,
    },
    /// Somebody else in this process called `C_Initialize`; a second call, or sharing it unknown, is undefined.
    #[error("PKCS#11 module {path} was initialised by other code in this process")]
    AlreadyInitialized {
        /// The module's file.
        path: PathBuf,
    },
    /// The threads for the sessions could not be started.
    #[error("the threads for the token's sessions could not be started")]
    Threads(#[source] io::Error),
    /// No PIN is tried: of its file, or of the record of refused ones.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The token's own answer.
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

impl Pkcs11Error {
    /// The token's own answer, if that is what this is.
    #[must_use]
    pub const fn hsm(&self) -> Option<&HsmError> {
        match self {
            Self::Hsm(error) => Some(error),
            _ => None,
        }
    }

    /// The same in the words of the trait, for [`casemate_hsm_api::KeyStore::reconnect`].
    pub(crate) fn into_hsm(self, token: &str) -> HsmError {
        self.into_hsm_of("opening", token)
    }

    /// The same, of another operation.
    pub(crate) fn into_hsm_of(self, operation: &str, token: &str) -> HsmError {
        match self {
            Self::Hsm(error) => error,
            other => {
                HsmError::Device { token: token.to_owned(), operation: operation.to_owned(), detail: told(&other) }
            }
        }
    }
}

/// The error and its source: the trait's errors have a text and no source.
fn told(error: &Pkcs11Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Sorts what a module returned by what has to be done next (PKCS#11 v2.40, 5.1).
pub(crate) fn classify(token: &str, error: &Error) -> HsmError {
    let token = token.to_owned();
    let Error::Pkcs11(value, function) = error else {
        return HsmError::Device { token, operation: "the PKCS#11 library".to_owned(), detail: error.to_string() };
    };
    // The library writes `Function::Sign`.
    let function = function.to_string();
    let operation = format!("C_{}", function.strip_prefix("Function::").unwrap_or(&function));
    // The library's own sentences fill a paragraph each; the name of the return value says as much.
    let detail = format!("{value:?}");
    match value {
        RvError::TokenNotPresent
        | RvError::TokenNotRecognized
        | RvError::DeviceRemoved
        | RvError::SessionHandleInvalid
        | RvError::SessionClosed
        | RvError::SlotIdInvalid
        | RvError::UserNotLoggedIn
        | RvError::CryptokiNotInitialized => HsmError::TokenAbsent { token, detail: format!("{operation}: {detail}") },
        RvError::DeviceMemory => HsmError::TokenFull { token, detail: format!("{operation}: {detail}") },
        RvError::SessionCount => HsmError::TokenFull {
            token,
            detail: format!("{operation}: {detail}, it opens no session; others may have them all"),
        },
        RvError::MechanismInvalid
        | RvError::MechanismParamInvalid
        | RvError::CurveNotSupported
        | RvError::KeySizeRange
        | RvError::FunctionNotSupported => HsmError::Unsupported { token, operation: format!("{operation}: {detail}") },
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinExpired => {
            HsmError::PinIncorrect { token }
        }
        RvError::PinLocked => HsmError::PinLocked { token, unlock: Unlock::SecurityOfficer },
        RvError::FipsSelfTestFailed => {
            HsmError::WrongAnswer { token, operation: format!("{operation}, its own self-test") }
        }
        _ => HsmError::Device { token, operation, detail },
    }
}

/// Whether the token opens no more sessions.
pub(crate) fn is_no_room(error: &HsmError) -> bool {
    matches!(error, HsmError::TokenFull { detail, .. } if detail.starts_with("C_OpenSession"))
}

/// Whether a cached handle is stale: the object was made anew or the token was away.
pub(crate) const fn is_stale_handle(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::KeyHandleInvalid | RvError::ObjectHandleInvalid, _))
}

/// Whether the module says that it makes no such key: an attribute's value, or all of them together, it does not take.
pub(crate) const fn is_refused_template(error: &Error) -> bool {
    matches!(error, Error::Pkcs11(RvError::AttributeValueInvalid | RvError::TemplateInconsistent, _))
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn absence_room_and_pins_are_told_apart() {
        let told = |value| classify("t", &Error::Pkcs11(value, Function::Sign));
        assert!(told(RvError::DeviceRemoved).is_absence());
        assert!(told(RvError::SessionHandleInvalid).is_absence());
        assert!(told(RvError::UserNotLoggedIn).is_absence());
        assert!(matches!(told(RvError::SessionCount), HsmError::TokenFull { .. }));
        assert!(is_no_room(&classify("t", &Error::Pkcs11(RvError::SessionCount, Function::OpenSession))));
        assert!(!is_no_room(&classify("t", &Error::Pkcs11(RvError::DeviceMemory, Function::CreateObject))));
        assert!(matches!(told(RvError::PinLenRange), HsmError::PinIncorrect { .. }));
        assert!(matches!(told(RvError::PinLocked), HsmError::PinLocked { .. }));
        assert!(told(RvError::FipsSelfTestFailed).is_error_state());
        assert!(!told(RvError::GeneralError).is_absence());
        assert!(
            told(RvError::GeneralError).to_string().contains("C_Sign: GeneralError"),
            "{}",
            told(RvError::GeneralError)
        );
    }
}
