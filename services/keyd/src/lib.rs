//! The key broker: the only process that opens the tokens. It judges each message before it is signed, records it, and only
//! then asks the token.
//!
//! [`Broker::handle`] is the whole of it without sockets: who asks, what is asked, what is answered.
#![forbid(unsafe_code)]

mod attest;
mod bounds;
mod broker;
mod buffer;
mod error;
mod generate;
mod harden;
pub mod judge;
mod keys;
mod open;
mod pin;
pub mod policy;
pub mod record;
pub mod roles;
mod server;
mod service;
mod settings;
mod sign;
mod timed;
mod token;
mod tokens;

pub use broker::{Answered, Broker, Parts};
pub use error::KeydError;
pub use judge::JudgeLimits;
pub use keys::Keys;
pub use policy::{Grant, KeyPolicy};
pub use record::{RecordFile, SignatureRecord, Sink, Spent};
pub use roles::RoleTokens;
pub use server::Server;
pub use service::serve;
pub use settings::{ConnectionSettings, RecordSettings, Settings};
pub use token::{Patience, TokenParts};
pub use tokens::Keeper;
