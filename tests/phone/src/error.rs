//! Everything that can stop the phone.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::capf::Command;

/// Why the phone stopped. Each text says what was seen and where; none holds an authentication string or key material.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// The settings of this run contradict each other or name something that cannot be.
    #[error("setting refused: {0}")]
    Setting(String),

    /// Nothing listens at the address, or it did not answer in time.
    #[error("{service}: cannot connect to {address}: {source}")]
    Connect {
        /// Which service was called.
        service: &'static str,
        /// Where it was called.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },

    /// The host name did not resolve to an address.
    #[error("{host} has no address: {source}")]
    NoAddress {
        /// The name as given.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },

    /// The connection broke, or TLS refused to go on.
    #[error("{service}: the connection failed: {source}")]
    Connection {
        /// Which service was spoken to.
        service: &'static str,
        /// The failure; a TLS alert or refusal is inside.
        source: io::Error,
    },

    /// The time for one exchange ran out.
    #[error("{service}: no complete answer within the time allowed")]
    TimedOut {
        /// Which service was spoken to.
        service: &'static str,
    },

    /// The TLS settings themselves were refused by the library, or are not FIPS settings.
    #[error("TLS settings refused: {0}")]
    TlsSettings(String),

    /// The server proved itself with a certificate that is not the one the trust list names for its role.
    #[error("{service}: the server's certificate is none that the trust list holds for this service")]
    ServerCertificate {
        /// Which service was spoken to.
        service: &'static str,
    },

    /// Bytes from a server do not have the shape that the format demands.
    #[error("{what} is malformed: {why}")]
    Malformed {
        /// The structure that was read.
        what: &'static str,
        /// The rule that it breaks.
        why: &'static str,
    },

    /// A signed file's signature does not fit its bytes: it was changed, or signed by another key.
    #[error("{file}: the signature is wrong; the file was changed or signed by another key")]
    WrongSignature {
        /// The name of the file.
        file: String,
    },

    /// A trust list breaks a rule that phones hold lists to (phone-formats §2).
    #[error("trust list refused: {0}")]
    List(&'static str),

    /// A later trust list is signed by a token that neither the known list nor TVS vouches for.
    #[error(
        "trust list refused: its signer {signer} is not among the known SAST records, and TVS does not vouch for it"
    )]
    UnknownListSigner {
        /// The signer's subject, as the header says it.
        signer: String,
    },

    /// A signed file names a signer that is in the trust list under no role that may sign it.
    #[error("{file}: its signer {signer} is not in the trust list with a role that signs files")]
    UnknownFileSigner {
        /// The name of the file.
        file: String,
        /// The signer's subject, as the header says it.
        signer: String,
    },

    /// The server does not have the file.
    #[error("{name}: the server has no such file")]
    NotFound {
        /// The file's name as asked for.
        name: String,
    },

    /// The file server refused for another reason than absence.
    #[error("{name}: the file server refused: {why}")]
    FileRefused {
        /// The file's name as asked for.
        name: String,
        /// TFTP error code and text, or the HTTP status.
        why: String,
    },

    /// The device configuration asks for what cannot be done now.
    #[error("configuration: {0}")]
    Config(String),

    /// CAPF sent a command that does not belong here.
    #[error("CAPF sent {got:?} while the phone waited for {expected}")]
    CapfOutOfOrder {
        /// What came.
        got: Command,
        /// What the flow of phone-formats §5 allows here.
        expected: &'static str,
    },

    /// CAPF ended the session with another reason than success.
    #[error("CAPF ended the session with reason {reason} ({})", crate::capf::reason_text(*.reason))]
    CapfEnded {
        /// The reason element's value.
        reason: u8,
    },

    /// CAPF wrote a message in pieces, on which phones stall (phone-formats §5).
    #[error("CAPF wrote one message in more than one TLS record; phones stall on that")]
    CapfSplitMessage,

    /// CAPF asked for a key that this phone may not make, or another than the one expected.
    #[error("CAPF asked for a key that does not fit: {0}")]
    KeyRequest(String),

    /// The certificate that CAPF delivered does not stand the phone's checks.
    #[error("the certificate is refused: {0}")]
    Lsc(&'static str),

    /// TVS answered something else than what this run expects.
    #[error("TVS answered {got} about the certificate, expected {expected}")]
    TvsAnswer {
        /// What TVS said.
        got: String,
        /// What this run expects.
        expected: &'static str,
    },

    /// The cryptographic module failed to make or read a key.
    #[error("the cryptographic module refused: {0}")]
    Module(&'static str),

    /// The phone's folder cannot be read or written.
    #[error("state folder: {}: {source}", path.display())]
    State {
        /// The file or folder.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },

    /// A file in the phone's folder is not what the phone wrote there.
    #[error("state folder: {}: {why}", path.display())]
    StateContent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// The result of every step of the phone.
pub type Result<T> = std::result::Result<T, PhoneError>;
