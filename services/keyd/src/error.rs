use std::{io, path::PathBuf};

use casemate_hsm_api::{HsmError, KeyRole};
use casemate_hsm_pkcs11::Pkcs11Error;
use casemate_hsm_tpm::TpmError;
use casemate_store::StoreError;

/// Why the broker does not run, or did not do what was asked for a reason of its own.
#[derive(Debug, thiserror::Error)]
pub enum KeydError {
    /// The key policy or the roles' tokens cannot be read.
    #[error("{path} cannot be read")]
    PolicyUnreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The key policy is none, or no token stands for each role; the text has the line.
    #[error("{path}: {detail}")]
    Policy {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        detail: String,
    },
    /// Neither the setting nor systemd says where a token's PIN is.
    #[error("no PIN file for {token}: set {setting}, or load the credential {credential:?} with systemd")]
    NoPinFile {
        /// The token.
        token: String,
        /// The setting's name.
        setting: &'static str,
        /// The credential's name.
        credential: &'static str,
    },
    /// The records of keys cannot be read or written.
    #[error("records of keys: {0}")]
    Store(#[from] StoreError),
    /// A record of a key is not what this program writes.
    #[error("the record of the {role:?} key is damaged ({detail}); restore the records of casemate-keyd")]
    RecordDamaged {
        /// Role as recorded.
        role: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// The record of signatures cannot be opened or written. No certificate, list or file is signed without it.
    #[error(
        "the record of signatures {path} cannot be written, so nothing that must stand in it is signed; is the disk full?"
    )]
    SignatureRecord {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The audit trail took no event. No handshake is signed and no key attested without it.
    #[error(
        "the audit trail cannot be written, so no handshake is signed and no key attested; does journald run, is its disk full?"
    )]
    AuditTrail(#[source] io::Error),
    /// A token cannot be opened at all: a wrong module, an unsafe PIN file.
    #[error("{token} cannot be opened")]
    Open {
        /// The token.
        token: String,
        /// Why.
        #[source]
        source: Pkcs11Error,
    },
    /// The TPM cannot be used at all: an unsafe PIN file, a folder that another process has.
    #[error("the TPM cannot be used")]
    Tpm(#[source] TpmError),
    /// Keys in the TPM are on record, and the folder with their blobs holds no token.
    #[error(
        "keys in the TPM are on record, and the folder {folder} holds no token; restore it, it is part of the backup"
    )]
    TpmFolderLost {
        /// The folder.
        folder: PathBuf,
    },
    /// Every token is there, and none is to be used: a wrong answer.
    #[error(transparent)]
    Token(HsmError),
    /// The socket cannot be made.
    #[error("socket {path} cannot be made")]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Linux did not let this process forbid dumps of its memory, which holds the PIN while it logs in.
    #[error("dumps of this process could not be forbidden")]
    Harden(#[source] nix::Error),
    /// A thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] io::Error),
    /// The cryptographic module gave no random bytes for a key's name.
    #[error("the cryptographic module gave no random bytes; the {role} key was not made")]
    Random {
        /// Whose key.
        role: KeyRole,
    },
}
