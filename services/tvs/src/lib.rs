//! The Trust Verification Service (guide 2742-2769): a phone that meets a certificate it does not know asks here.
//!
//! [`codec`], [`request`], [`trust`] and [`session`] do no input or output; [`identities`] reads the trust store's files and
//! [`connection`] is the thin loop around a session. Only identity certificates are known, and they are compared byte for
//! byte: TVS verifies no chain (guide 2427-2433).
#![forbid(unsafe_code)]

pub mod answers;
pub mod codec;
pub mod connection;
pub mod identities;
pub mod request;
pub mod session;
pub mod settings;
pub mod trust;
