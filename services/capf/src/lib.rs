//! CAPF, the Certificate Authority Proxy Function: phones enrol here and get a locally significant certificate (guide 4765-4871),
//! signed by a key that stays in the token.
//!
//! - [`protocol`]: messages as bytes.
//! - [`session`]: one session as a state machine without input or output.
//! - [`records`]: devices, operations, certificates; on disk before they are acted upon.
//! - [`issuer`]: certificates over the key broker.
//! - [`enrolment`]: connects the four for every connection.
//! - [`control`]: what the console and ctlprovider ask over `capf.sock`.
#![forbid(unsafe_code)]

pub mod authentication;
pub mod control;
mod daemon;
mod device;
pub mod enrolment;
pub mod issuer;
pub mod key;
pub mod protocol;
pub mod records;
pub mod session;
mod settings;

pub use daemon::serve;
pub use device::{BadDeviceName, DeviceName, NAME_LIMIT};
pub use settings::{BadValidity, CapfSettings, SessionLimits, Validity};
