//! CAPF messages as bytes (phone-formats §5): `0x55, command: u8, session: u32, length: u16, elements`, big-endian, an element
//! being `tag: u8, length: u16, value`.
//!
//! What is accepted has one form: `decode(bytes)` encodes to the same `bytes`. An element may come once in a message.

mod command;
mod decoder;
mod element;
mod message;

pub use command::Command;
pub use decoder::Decoder;
pub use element::{Element, Password, Reason};
pub use message::{HEADER, MAGIC, Message};

/// A peer sent what is no CAPF message. Nothing after it can be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    /// The first byte is not 0x55.
    #[error("a message begins with 0x55, not 0x{0:02x}")]
    Magic(u8),
    /// No command has this number.
    #[error("no CAPF command {0}")]
    Command(u8),
    /// The elements are longer than the limit.
    #[error("elements of {length} bytes, the limit is {limit}")]
    TooLong {
        /// Announced length.
        length: usize,
        /// Most that is taken.
        limit: usize,
    },
    /// An element ends after its message.
    #[error("the message ends inside an element")]
    Cut,
    /// The value does not have its tag's form or length.
    #[error("element {tag} has a value that it cannot have")]
    Value {
        /// Which element.
        tag: u8,
    },
    /// The element came before in the same message.
    #[error("element {tag} comes twice")]
    Twice {
        /// Which element.
        tag: u8,
    },
}
