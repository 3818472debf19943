//! The phone's side of enrolment over CAPF (phone-formats §5).
//!
//! [`message`] reads and writes the wire form, [`session`] is the flow without IO, [`enrol`] runs it over TLS, and
//! [`behaviour`] says how a phone of the fault tests misbehaves.

pub mod behaviour;
pub mod enrol;
mod link;
pub mod message;
pub mod session;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use behaviour::{Behaviour, Fault, Step};
pub use enrol::{Enrolment, KeyHolder, Outcome, Premade, enrol};
pub use message::{Command, Message};

/// Reason 1: success.
pub const SUCCESS: u8 = 1;
/// Reason 0: nothing to do.
pub const NO_ACTION: u8 = 0;
/// Reason 7: declined.
pub const DECLINED: u8 = 7;

/// What a reason means, as far as it is known.
#[must_use]
pub fn reason_text(reason: u8) -> &'static str {
    match reason {
        NO_ACTION => "no action",
        SUCCESS => "success",
        DECLINED => "declined",
        9 => "unknown device",
        _ => "a reason of unknown meaning",
    }
}

/// The string that the user types into the phone. It is sent as it stands, whatever its length: the server is to refuse.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AuthString(String);

impl AuthString {
    /// Keeps a string.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthString {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AuthString(hidden)")
    }
}

impl std::str::FromStr for AuthString {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}
