//! The wire form: `0x55, command:u8, session:u32, length:u16, elements`, all big-endian (phone-formats §5).

use crate::error::{PhoneError, Result};
use crate::tlv::{Elements, byte};

/// First byte of every message.
pub const PROTOCOL: u8 = 0x55;
/// Bytes before the elements.
pub const HEADER: usize = 8;
/// Longest message that the phone takes: what one TLS record carries.
pub const MAX_MESSAGE: usize = 16 * 1024;
const WHAT: &str = "CAPF message";

/// Element tags that the phone reads or writes.
pub mod tag {
    /// Why a session ends, or whether a request was met.
    pub const REASON: u8 = 1;
    /// LSC or MIC.
    pub const CERT_TYPE: u8 = 3;
    /// A certificate in an inner TLV.
    pub const CERTIFICATE: u8 = 4;
    /// The version that a side speaks.
    pub const VERSION: u8 = 7;
    /// How the server wants the phone to prove itself.
    pub const AUTH_TYPE: u8 = 8;
    /// A `SubjectPublicKeyInfo` in DER.
    pub const PUBLIC_KEY: u8 = 9;
    /// Bits of an RSA key.
    pub const KEY_SIZE: u8 = 10;
    /// The authentication string.
    pub const PASSWORD: u8 = 11;
    /// The device's name.
    pub const DEVICE: u8 = 13;
    /// RSA or EC.
    pub const KEY_TYPE: u8 = 17;
    /// The curve of an EC key.
    pub const CURVE: u8 = 18;
}

/// A message's command. All of the protocol are named; the phone plays those of the install flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of phone-formats §5")]
pub enum Command {
    AuthRequest = 1,
    AuthResponse,
    KeyGenRequest,
    KeyGenResponse,
    EncryptResponse,
    EncryptRequest,
    DecryptRequest,
    DecryptResponse,
    StoreCertRequest,
    StoreCertResponse,
    FetchCertRequest,
    FetchCertResponse,
    DeleteCertRequest,
    DeleteCertResponse,
    EndSession,
    RetryLater,
    RequestInProgress,
    StatusRequest,
    StatusResponse,
    AbortRequest,
    AbortResponse,
    SignCertRequest,
    SignCertResponse,
}

impl Command {
    /// The command with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        use Command::*;
        const ALL: [Command; 23] = [
            AuthRequest,
            AuthResponse,
            KeyGenRequest,
            KeyGenResponse,
            EncryptResponse,
            EncryptRequest,
            DecryptRequest,
            DecryptResponse,
            StoreCertRequest,
            StoreCertResponse,
            FetchCertRequest,
            FetchCertResponse,
            DeleteCertRequest,
            DeleteCertResponse,
            EndSession,
            RetryLater,
            RequestInProgress,
            StatusRequest,
            StatusResponse,
            AbortRequest,
            AbortResponse,
            SignCertRequest,
            SignCertResponse,
        ];
        ALL.into_iter().find(|command| *command as u8 == number)
    }
}

/// One message. No tag appears twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub command: Command,
    /// The session that the server chose.
    pub session: u32,
    elements: Vec<(u8, Vec<u8>)>,
}

impl Message {
    /// A message without elements.
    #[must_use]
    pub fn new(command: Command, session: u32) -> Self {
        Self { command, session, elements: Vec::new() }
    }

    /// Adds an element, or replaces the one with the same tag.
    #[must_use]
    pub fn with(mut self, tag: u8, value: impl Into<Vec<u8>>) -> Self {
        self.elements.retain(|(known, _)| *known != tag);
        self.elements.push((tag, value.into()));
        self
    }

    /// The value of the element with this tag.
    #[must_use]
    pub fn get(&self, tag: u8) -> Option<&[u8]> {
        self.elements.iter().find(|(known, _)| *known == tag).map(|(_, value)| value.as_slice())
    }

    /// The reason element.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when it is missing or no byte.
    pub fn reason(&self) -> Result<u8> {
        byte(WHAT, self.get(tag::REASON).ok_or(malformed("no reason"))?)
    }

    /// The DER inside the certificate element: `01, u16 length, 00 01, DER`.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when it is missing or has another shape.
    pub fn certificate(&self) -> Result<&[u8]> {
        let mut inner = Elements::new(WHAT, self.get(tag::CERTIFICATE).ok_or(malformed("no certificate"))?);
        let value = inner.expect(1, "the certificate element holds no inner element 1")?;
        inner.finish()?;
        value.strip_prefix(&[0, 1]).ok_or(malformed("the certificate is not marked as an LSC"))
    }

    /// The message's bytes.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when it would be longer than [`MAX_MESSAGE`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        for (tag, value) in &self.elements {
            let length = u16::try_from(value.len()).map_err(|_| malformed("an element is too long"))?;
            body.push(*tag);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(value);
        }
        if HEADER + body.len() > MAX_MESSAGE {
            return Err(malformed("it is longer than a message may be"));
        }
        let length = u16::try_from(body.len()).map_err(|_| malformed("it is longer than a message may be"))?;
        let mut bytes = vec![PROTOCOL, self.command as u8];
        bytes.extend_from_slice(&self.session.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads the message that starts `bytes`; returns it and the number of its bytes, or `None` while it is not whole.
    ///
    /// # Errors
    /// [`PhoneError::Malformed`] when no message can begin with these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>> {
        if bytes.first().is_some_and(|first| *first != PROTOCOL) {
            return Err(malformed("it does not begin with 0x55"));
        }
        let Some(([_, command, session @ .., high, low], rest)) = bytes.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if HEADER + length > MAX_MESSAGE {
            return Err(malformed("it is longer than a message may be"));
        }
        let command = Command::from_number(*command).ok_or(malformed("an unknown command"))?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let mut message = Self::new(command, u32::from_be_bytes(*session));
        let mut elements = Elements::new(WHAT, body);
        while let Some(element) = elements.next_element()? {
            if message.get(element.tag).is_some() {
                return Err(malformed("an element appears twice"));
            }
            message.elements.push((element.tag, element.value.to_vec()));
        }
        Ok(Some((message, HEADER + length)))
    }
}

pub(super) fn malformed(why: &'static str) -> PhoneError {
    PhoneError::Malformed { what: WHAT, why }
}

/// Text as the protocol carries it: with a NUL at its end.
pub(super) fn with_nul(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_auth_request_has_these_bytes() {
        let message = Message::new(Command::AuthRequest, 0x0102_0304).with(tag::VERSION, [3]).with(tag::AUTH_TYPE, [0]);
        let bytes = [0x55, 1, 1, 2, 3, 4, 0, 8, 7, 0, 1, 3, 8, 0, 1, 0];
        assert_eq!(message.encode().unwrap(), bytes);
        assert_eq!(Message::decode(&bytes).unwrap(), Some((message, bytes.len())));
    }

    #[test]
    fn a_certificate_stands_in_an_inner_element() {
        let message = |value: &[u8]| Message::new(Command::StoreCertRequest, 1).with(tag::CERTIFICATE, value);
        assert_eq!(message(&[1, 0, 4, 0, 1, 0x30, 0]).certificate().unwrap(), [0x30, 0]);
        for wrong in [&[1, 0, 4, 0, 2, 0x30, 0][..], &[2, 0, 4, 0, 1, 0x30, 0], &[1, 0, 3, 0, 1, 0x30, 0], &[]] {
            assert!(message(wrong).certificate().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_cannot_become_a_message_is_refused_at_once() {
        assert!(Message::decode(&[0x56]).is_err());
        assert!(Message::decode(&[0x55, 1, 0, 0, 0, 0, 0xff, 0xff]).is_err());
        assert!(Message::decode(&[0x55, 24, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Message::decode(&[0x55, 1, 0, 0, 0, 0, 0, 8, 7, 0, 1, 3, 7, 0, 1, 3]).is_err());
        assert!(Message::decode(&[0x55, 1, 0, 0, 0, 0, 0, 4, 7, 0, 9, 3]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(command in 1_u8..=23, session: u32, elements in proptest::collection::btree_map(
            any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let mut message = Message::new(Command::from_number(command).unwrap(), session);
            for (tag, value) in elements {
                message = message.with(tag, value);
            }
            let bytes = message.encode().unwrap();
            for cut in 0..bytes.len() {
                prop_assert_eq!(Message::decode(&bytes[..cut]).unwrap(), None);
            }
            prop_assert_eq!(Message::decode(&bytes).unwrap(), Some((message, bytes.len())));
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256), shaped: bool) {
            if let (true, Some(first)) = (shaped, bytes.first_mut()) {
                *first = PROTOCOL;
            }
            if let Ok(Some((message, used))) = Message::decode(&bytes) {
                prop_assert!(used <= bytes.len());
                let _ = (message.reason(), message.certificate());
            }
        }
    }
}
