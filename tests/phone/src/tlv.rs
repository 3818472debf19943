//! Tag, length and value: the bricks of phone files and messages (phone-formats §1).
//!
//! Wire form: `tag:u8, length:u16 big-endian, value[length]`.

pub mod header;
pub mod record;

use crate::error::{PhoneError, Result};

/// One element: its tag and the bytes of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlv<'a> {
    /// What the value means.
    pub tag: u8,
    /// The value, without tag and length.
    pub value: &'a [u8],
}

/// Reads elements one after the other from bytes that a server sent.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    what: &'static str,
    all: &'a [u8],
    at: usize,
}

impl<'a> Elements<'a> {
    /// Starts at the first byte of `bytes`; `what` names the structure in errors.
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, all: bytes, at: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub fn position(&self) -> usize {
        self.at
    }

    /// The bytes that are not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.all.get(self.at..).unwrap_or_default()
    }

    /// The next element, or `None` at the end.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when a length runs past the end.
    pub fn next_element(&mut self) -> Result<Option<Tlv<'a>>> {
        let rest = self.rest();
        if rest.is_empty() {
            return Ok(None);
        }
        let Some((&[tag, high, low], value)) = rest.split_first_chunk::<3>() else {
            return Err(self.malformed("an element ends before its length"));
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(value) = value.get(..length) else {
            return Err(self.malformed("an element's length runs past the end"));
        };
        self.at += 3 + length;
        Ok(Some(Tlv { tag, value }))
    }

    /// The next element, which must have this tag.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] with `why` when it has another tag or is missing.
    pub fn expect(&mut self, tag: u8, why: &'static str) -> Result<&'a [u8]> {
        match self.next_element()? {
            Some(element) if element.tag == tag => Ok(element.value),
            _ => Err(self.malformed(why)),
        }
    }

    /// Fails unless everything was read.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when bytes are left.
    pub fn finish(&self) -> Result<()> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.malformed("bytes are left after the last element")) }
    }

    fn malformed(&self, why: &'static str) -> PhoneError {
        PhoneError::Malformed { what: self.what, why }
    }
}

/// A `u8` value.
///
/// # Errors
/// [`PhoneError::Malformed`] when the value has another length.
pub fn byte(what: &'static str, value: &[u8]) -> Result<u8> {
    match value {
        [one] => Ok(*one),
        _ => Err(PhoneError::Malformed { what, why: "a one-byte value has another length" }),
    }
}

/// A big-endian `u16` value.
///
/// # Errors
/// [`PhoneError::Malformed`] when the value has another length.
pub fn short(what: &'static str, value: &[u8]) -> Result<u16> {
    match value {
        [high, low] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(PhoneError::Malformed { what, why: "a two-byte value has another length" }),
    }
}

/// A big-endian `u32` value.
///
/// # Errors
/// [`PhoneError::Malformed`] when the value has another length.
pub fn long(what: &'static str, value: &[u8]) -> Result<u32> {
    let bytes =
        value.try_into().map_err(|_| PhoneError::Malformed { what, why: "a four-byte value has another length" })?;
    Ok(u32::from_be_bytes(bytes))
}

/// Text with exactly one NUL, at its end, which the length counts.
///
/// # Errors
/// [`PhoneError::Malformed`] when the NUL is missing, another stands before it, or the text is not UTF-8.
pub fn text<'a>(what: &'static str, value: &'a [u8]) -> Result<&'a str> {
    let Some((0, text)) = value.split_last() else {
        return Err(PhoneError::Malformed { what, why: "a text does not end with NUL" });
    };
    if text.contains(&0) {
        return Err(PhoneError::Malformed { what, why: "a text holds a NUL before its end" });
    }
    std::str::from_utf8(text).map_err(|_| PhoneError::Malformed { what, why: "a text is not UTF-8" })
}

/// A serial number as the formats compare it: without leading zero bytes (a DER sign byte is one).
#[must_use]
pub fn minimal(mut serial: &[u8]) -> &[u8] {
    while let Some((0, rest)) = serial.split_first() {
        serial = rest;
    }
    serial
}
