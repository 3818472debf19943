//! How daemons use keys that they never see: the protocol of the key broker (`keyd`), its client, and the adapters that make
//! a key in the token look like a rustls `SigningKey` or an rcgen `SigningKey`.
//!
//! A request to sign carries the whole message and what it is for, never a digest: CallManager is both a list signer and a
//! TLS key, and a broker that signed digests would let any TLS daemon forge a trust list.
#![forbid(unsafe_code)]

mod certificates;
mod client;
mod protocol;
mod signer;
mod tls;

pub use certificates::Certificates;
pub use client::{Client, ClientSettings, KeyringError};
pub use protocol::{
    BrokerState, Evidence, FRAMING, KeyRecord, MESSAGE_LIMIT, NONCE_LIMIT, NewPin, Purpose, Refusal, Request, Response,
    SignRequest, Status, TokenStatus, UNRECORDED_LIMIT, UnrecordedKey,
};
pub use signer::RoleSigner;
pub use tls::TlsKey;
