use std::{io, path::PathBuf, time::Duration};

use casemate_hsm_api::{HsmError, KeyId, Unlock};
use casemate_hsm_pin::PinError;
use tss_esapi::{
    Error,
    constants::response_code::{Tss2ResponseCode, Tss2ResponseCodeKind as Kind},
};

/// Why a TPM could not be used as a token, beyond what it says itself ([`HsmError`]).
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The thread that talks to the TPM could not be started.
    #[error("the thread for the TPM could not be started")]
    Thread(#[source] io::Error),
    /// No PIN is tried: of its file, of that with the owner's authorization, or of the record of refused PINs.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The folder holds no token. Only [`TpmStore::initialize`](crate::TpmStore::initialize) makes one.
    #[error("{folder} holds no token; check the setting, or initialise one there")]
    NotInitialized {
        /// The folder of the settings.
        folder: PathBuf,
    },
    /// The folder holds a token already, and making another would lose its keys.
    #[error("{folder} holds a token already")]
    AlreadyInitialized {
        /// The folder of the settings.
        folder: PathBuf,
    },
    /// Another process, or another store of this one, has the folder.
    #[error("{folder} is in use by another store")]
    InUse {
        /// The folder of the settings.
        folder: PathBuf,
    },
    /// A file of the folder cannot be read or written.
    #[error("{path} cannot be read or written")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the folder is not what this program wrote, or the TPM does not take it for its own. It is left as it is.
    #[error("{path} is damaged: {detail}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The folder's keys were made by another TPM, or before this one was cleared.
    #[error("the keys in {folder} were made by TPM {made_by}, and this is TPM {found}")]
    OtherTpm {
        /// The folder of the settings.
        folder: PathBuf,
        /// Serial of the TPM that made them.
        made_by: String,
        /// Serial of the TPM at the address.
        found: String,
    },
    /// The trusted wrapping key of the settings is none.
    #[error("wrapping key {path} is not used: {detail}")]
    WrappingKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The TPM's own answer.
    #[error(transparent)]
    Hsm(#[from] HsmError),
}

impl TpmError {
    /// The TPM's own answer, if that is what this is.
    #[must_use]
    pub const fn hsm(&self) -> Option<&HsmError> {
        match self {
            Self::Hsm(error) => Some(error),
            _ => None,
        }
    }

    /// The same in the words of the trait. Another TPM in the place of the right one is the right one's absence.
    pub(crate) fn into_hsm(self, token: &str) -> HsmError {
        self.into_hsm_of("opening", token)
    }

    /// The same, of another operation.
    pub(crate) fn into_hsm_of(self, operation: &str, token: &str) -> HsmError {
        match self {
            Self::Hsm(error) => error,
            Self::OtherTpm { ref made_by, .. } => {
                HsmError::TokenAbsent { token: made_by.clone(), detail: self.to_string() }
            }
            other => {
                HsmError::Device { token: token.to_owned(), operation: operation.to_owned(), detail: told(&other) }
            }
        }
    }

    /// What is wrong with the blobs of one key, in the words of the trait.
    pub(crate) fn of_key(self, id: KeyId, token: &str) -> HsmError {
        match self {
            Self::Hsm(error) => error,
            Self::Damaged { .. } => {
                HsmError::KeyNotAsSpecified { key: id.to_string(), token: token.to_owned(), detail: self.to_string() }
            }
            other => HsmError::Device {
                token: token.to_owned(),
                operation: format!("the files of key {id}"),
                detail: told(&other),
            },
        }
    }
}

/// The error and its source: the trait's errors have a text and no source.
fn told(error: &TpmError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// What can be done at once about an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// The TPM asks to be asked again.
    Wait,
    /// Unload objects and try again.
    UnloadObjects,
    /// Open a new session and try again.
    NewSession,
    /// Nothing.
    None,
}

/// Sorts an answer by what can be done at once (TPM 2.0 part 2, 6.6).
pub(crate) fn remedy(error: Error) -> Remedy {
    match kind(error) {
        Some(Kind::Retry | Kind::Yielded | Kind::Testing | Kind::NvRate) => Remedy::Wait,
        Some(Kind::ObjectMemory | Kind::ObjectHandles | Kind::Memory) => Remedy::UnloadObjects,
        Some(Kind::SessionMemory | Kind::SessionHandles | Kind::ContextGap | Kind::ReferenceS0) => Remedy::NewSession,
        Some(Kind::Value | Kind::Handle) if of_session(error) => Remedy::NewSession,
        _ => Remedy::None,
    }
}

/// Sorts an answer by what has to be done next.
pub(crate) fn classify(token: &str, operation: &str, error: Error, waited: Duration) -> HsmError {
    let detail = describe(error);
    let token = token.to_owned();
    let operation = operation.to_owned();
    if is_connection(error) || is_out_of_step(error) {
        return HsmError::TokenAbsent { token, detail: format!("{operation}: {detail}") };
    }
    if is_garbled(error) {
        return HsmError::WrongAnswer {
            token,
            operation: format!("{operation}, whose answer is not the TPM's ({detail})"),
        };
    }
    match kind(error) {
        // Handles are gone, or nobody started it: the TPM was reset, and is connected to anew.
        Some(
            Kind::Initialize
            | Kind::Reboot
            | Kind::NvUnavailable
            | Kind::ReferenceH0
            | Kind::ReferenceH1
            | Kind::Handle,
        ) => HsmError::TokenAbsent { token, detail: format!("{operation}: {detail}") },
        Some(Kind::Lockout) => {
            HsmError::PinLocked { token, unlock: Unlock::DictionaryLockout { forgets_one_in: None } }
        }
        Some(Kind::Failure | Kind::NeedsTest) => {
            HsmError::WrongAnswer { token, operation: format!("{operation}, its own self-test") }
        }
        Some(Kind::Retry | Kind::Yielded | Kind::Testing | Kind::NvRate) => HsmError::Timeout { token, limit: waited },
        Some(
            Kind::ObjectMemory
            | Kind::ObjectHandles
            | Kind::Memory
            | Kind::SessionMemory
            | Kind::SessionHandles
            | Kind::ContextGap
            | Kind::TooManyContexts
            | Kind::NvSpace,
        ) => HsmError::TokenFull { token, detail: format!("{operation}: {detail}") },
        Some(
            Kind::CommandCode
            | Kind::Asymmetric
            | Kind::Hash
            | Kind::KeySize
            | Kind::Mgf
            | Kind::Scheme
            | Kind::Symmetric
            | Kind::Curve,
        ) => HsmError::Unsupported { token, operation: format!("{operation}: {detail}") },
        _ => HsmError::Device { token, operation, detail },
    }
}

/// Whether an authorization was refused.
pub(crate) fn is_refusal(error: Error) -> bool {
    matches!(kind(error), Some(Kind::AuthFail | Kind::BadAuth))
}

/// Whether the TPM does not take a blob for one of its own, or for one at all.
pub(crate) fn is_bad_blob(error: Error) -> bool {
    !is_connection(error) && matches!(error, Error::Tss2Error(Tss2ResponseCode::FormatOne(_)))
}

/// Whether the handle of a loaded key means nothing to the TPM any more.
pub(crate) fn is_stale(error: Error) -> bool {
    matches!(kind(error), Some(Kind::ReferenceH0 | Kind::Handle | Kind::Value))
        && !of_session(error)
        && !of_parameter(error)
}

/// Response code of the layer below the TPM: the connection failed.
fn is_connection(error: Error) -> bool {
    // TSS2_TCTI_RC_LAYER (TSS 2.0 overview, 4.2).
    number(error).is_some_and(|number| number >> 16 == 10)
}

/// Whether the library could not read an answer, or the session's HMAC does not fit it: what came back is not what a TPM said.
fn is_garbled(error: Error) -> bool {
    // TSS2_BASE_RC_MALFORMED_RESPONSE, INSUFFICIENT_RESPONSE and RSP_AUTH_FAILED of the layers ESAPI, SAPI and MU (TSS 2.0
    // overview, 4.2).
    number(error).is_some_and(|number| matches!(number >> 16, 7..=9) && matches!(number & 0xffff, 17 | 19 | 27))
}

/// Whether the library's context waits for the end of another command than is asked: it takes none any more, until there is another.
fn is_out_of_step(error: Error) -> bool {
    // TSS2_BASE_RC_BAD_SEQUENCE of ESAPI and SAPI.
    matches!(number(error), Some(0x0007_0007 | 0x0008_0007))
}

/// Whether the code speaks of a session (TPM 2.0 part 2, 6.6.2: format one, `P` clear, `N` of 8 and more).
fn of_session(error: Error) -> bool {
    number(error).is_some_and(|number| number & 0x8c0 == 0x880)
}

/// Whether the code speaks of a parameter (`P` set).
fn of_parameter(error: Error) -> bool {
    number(error).is_some_and(|number| number & 0x0c0 == 0x0c0)
}

/// Nothing for what the TPM did not say: the library has no layers in its names.
fn kind(error: Error) -> Option<Kind> {
    match error {
        // The kernel's and the library's resource managers speak for the TPM (layers 11 and 12).
        Error::Tss2Error(code) if matches!(number(error)? >> 16, 0 | 11 | 12) => code.kind(),
        _ => None,
    }
}

/// The number, which the library shows in its text and nowhere else.
fn number(error: Error) -> Option<u32> {
    let text = match error {
        Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.to_string(),
        Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.to_string(),
        _ => return None,
    };
    u32::from_str_radix(text.rsplit_once("0x")?.1, 16).ok()
}

fn describe(error: Error) -> String {
    match (number(error), kind(error)) {
        (Some(number), Some(kind)) => format!("{kind:?} ({number:#x})"),
        (Some(number), None) => format!("{number:#x}"),
        (None, _) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(number: u32) -> Error {
        Error::Tss2Error(number.into())
    }

    fn told_as(number: u32) -> HsmError {
        classify("t", "TPM2_Sign", answer(number), Duration::from_secs(1))
    }

    #[test]
    fn the_numbers_of_the_specification_are_told_apart() {
        assert!(matches!(told_as(0x921), HsmError::PinLocked { .. }), "TPM_RC_LOCKOUT");
        assert!(matches!(told_as(0x902), HsmError::TokenFull { .. }), "TPM_RC_OBJECT_MEMORY");
        assert!(matches!(told_as(0x905), HsmError::TokenFull { .. }), "TPM_RC_SESSION_HANDLES");
        assert!(matches!(told_as(0x922), HsmError::Timeout { .. }), "TPM_RC_RETRY, again and again");
        assert!(matches!(told_as(0x100), HsmError::TokenAbsent { .. }), "TPM_RC_INITIALIZE");
        assert!(told_as(0x101).is_error_state(), "TPM_RC_FAILURE");
        assert!(matches!(told_as(0x2c3), HsmError::Unsupported { .. }), "TPM_RC_HASH, parameter 2");
        assert!(told_as(0x000a_000a).is_absence(), "TSS2_TCTI_RC_IO_ERROR");
        assert!(matches!(told_as(0x0007_000b), HsmError::Device { .. }), "a fault of the library is not the TPM's");
        assert!(told_as(0x0007_001b).is_error_state(), "TSS2_ESYS_RC_RSP_AUTH_FAILED");
        assert!(told_as(0x0008_0011).is_error_state(), "TSS2_SYS_RC_MALFORMED_RESPONSE");
        assert!(told_as(0x0007_0007).is_absence(), "TSS2_ESYS_RC_BAD_SEQUENCE");
        assert!(told_as(0x000a_0011).is_absence(), "TSS2_TCTI_RC_MALFORMED_RESPONSE: the connection is of no use");
        assert!(!is_bad_blob(answer(0x000a_008a)));
        assert!(is_bad_blob(answer(0x1df)), "TPM_RC_INTEGRITY, parameter 1");
        assert!(is_refusal(answer(0x98e)) && is_refusal(answer(0x9a2)), "TPM_RC_AUTH_FAIL and TPM_RC_BAD_AUTH");
    }

    #[test]
    fn remedies_are_for_the_tpm_alone() {
        assert_eq!(remedy(answer(0x922)), Remedy::Wait);
        assert_eq!(remedy(answer(0x908)), Remedy::Wait);
        assert_eq!(remedy(answer(0x902)), Remedy::UnloadObjects);
        assert_eq!(remedy(answer(0x903)), Remedy::NewSession);
        assert_eq!(remedy(answer(0x984)), Remedy::NewSession, "TPM_RC_VALUE of session 1");
        assert_eq!(remedy(answer(0x184)), Remedy::None, "TPM_RC_VALUE of handle 1");
        assert_eq!(remedy(answer(0x1c4)), Remedy::None, "TPM_RC_VALUE of parameter 1");
        assert_eq!(remedy(answer(0x000a_0922)), Remedy::None);
    }
}
