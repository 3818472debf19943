//! The lab: every daemon as a plain process against SQLite and the tokens of one's choice, SoftHSM if nothing is said, under a uid
//! of its own, so that what `SO_PEERCRED` says of a caller is what it says in the image. The programs are the shipped ones; only paths and ports differ.
//!
//! Without root there is one uid for all, and then the lab says what it does not prove.
#![forbid(unsafe_code)]

mod config;
mod error;
mod lab;
mod layout;
mod notify;
mod program;
mod settings;
mod supervisor;
mod token;
mod tokens;

pub use error::LabError;
pub use lab::{Lab, Phone};
pub use layout::{DAEMONS, Layout, Owner};
pub use program::programs;
pub use settings::{LabSettings, Ports};
pub use token::{LABEL as TOKEN_LABEL, MODULE as TOKEN_MODULE};
pub use tokens::{Tokens, UnknownTokens};
