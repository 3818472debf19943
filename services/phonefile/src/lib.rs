//! The files that Cisco phones take: trust lists, signed files, device configurations (phone-formats §§1-4). Bytes in, typed
//! values out, and back; no keys, no input or output.
//!
//! A file is built in two steps, for the key is elsewhere: [`Unsigned::to_be_signed`] is what is hashed,
//! [`Unsigned::with_signature`] the file. Whoever holds the key reads the same bytes with [`ToBeSigned::parse`] before it
//! signs. A phone's side is [`SignedFile::parse`] and [`SignedFile::verify`].
#![forbid(unsafe_code)]

mod config;
mod config_read;
mod config_write;
mod error;
mod file;
mod header;
mod limits;
mod list;
mod record;
mod role;
mod show;
mod signed;
mod tlv;
mod unsigned;
mod verify;

pub use config::{
    CallManager, CapfAuthMode, CapfServer, DeviceConfig, DeviceSecurityMode, MAX_SERVERS, TransportLayerProtocol,
    TvsServer,
};
pub use error::PhoneFileError;
pub use file::{PhoneFile, SIGNED_SUFFIX};
pub use header::{Digest, FileKind, Modulus, SignerId, SignerVersion};
pub use limits::{Limits, ListWarning};
pub use list::{CTL_FILE_NAME, ITL_FILE_NAME, TrustList};
pub use record::Record;
pub use role::Role;
pub use show::{ListView, RecordView};
pub use signed::{Content, SignedFile};
pub use unsigned::{ToBeSigned, Unsigned};
pub use verify::{Sha1, SignerKey};
