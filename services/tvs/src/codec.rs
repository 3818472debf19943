//! TVS messages on the wire (phone-formats §6).

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 10;

const MAGIC: u8 = 0x57;
const VERSION: u8 = 1;

/// What a message is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Command {
    /// A phone asks about a certificate.
    VerifyRequest = 1,
    /// The answer.
    VerifyResponse = 2,
    /// A phone asks for a certificate; its elements are not known.
    QueryRequest = 3,
    /// The answer.
    QueryResponse = 4,
}

impl Command {
    const fn parse(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::VerifyRequest),
            2 => Some(Self::VerifyResponse),
            3 => Some(Self::QueryRequest),
            4 => Some(Self::QueryResponse),
            _ => None,
        }
    }
}

/// `tag: u8, length: u16, value`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Element {
    /// Which element.
    pub tag: u8,
    /// Its value, at most 65535 bytes.
    pub value: Vec<u8>,
}

/// `0x57, version: u8 = 1, command: u8, 0, session: u32, length: u16, elements`, integers big-endian, `length` that of the
/// elements.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// What it is for.
    pub command: Command,
    /// Picked by the phone; the answer has the same.
    pub session: u32,
    /// In the order of the wire.
    pub elements: Vec<Element>,
}

/// The bytes are no TVS message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CodecError {
    /// The first byte is not 0x57: another protocol.
    #[error("a TVS message begins with 0x57, not {0:#04x}")]
    Magic(u8),
    /// Another version.
    #[error("TVS version {0}, only 1 is known")]
    Version(u8),
    /// No such command.
    #[error("TVS command {0} does not exist")]
    Command(u8),
    /// The fourth byte is not zero.
    #[error("the reserved byte of the TVS header is {0}, not 0")]
    Reserved(u8),
    /// More is announced than is taken.
    #[error("a TVS message of {length} bytes, the limit is {limit}")]
    Length {
        /// Announced, header included.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// An element is longer than the message that holds it.
    #[error("an element of the TVS message is cut short")]
    Element,
    /// More than 65535 bytes of elements cannot be encoded.
    #[error("the TVS message is too long to be sent")]
    TooLong,
}

/// Parses the message at the start of `bytes`: the message and its length, or nothing while it is not whole. What cannot become
/// a message of at most `limit` bytes is refused with the first byte that shows it.
///
/// # Errors
/// As [`CodecError`] says; the connection is useless then.
pub fn decode(bytes: &[u8], limit: usize) -> Result<Option<(Message, usize)>, CodecError> {
    early(bytes)?;
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [_, _, command, _, s0, s1, s2, s3, l0, l1] = *header;
    let command = Command::parse(command).ok_or(CodecError::Command(command))?;
    let body_length = usize::from(u16::from_be_bytes([l0, l1]));
    let length = HEADER_BYTES + body_length;
    if length > limit {
        return Err(CodecError::Length { length, limit });
    }
    let Some(body) = rest.get(..body_length) else { return Ok(None) };
    let message = Message { command, session: u32::from_be_bytes([s0, s1, s2, s3]), elements: elements(body)? };
    Ok(Some((message, length)))
}

fn early(bytes: &[u8]) -> Result<(), CodecError> {
    match bytes {
        [magic, ..] if *magic != MAGIC => Err(CodecError::Magic(*magic)),
        [_, version, ..] if *version != VERSION => Err(CodecError::Version(*version)),
        [_, _, command, ..] if Command::parse(*command).is_none() => Err(CodecError::Command(*command)),
        [_, _, _, reserved, ..] if *reserved != 0 => Err(CodecError::Reserved(*reserved)),
        _ => Ok(()),
    }
}

fn elements(mut body: &[u8]) -> Result<Vec<Element>, CodecError> {
    let mut elements = Vec::new();
    while !body.is_empty() {
        let ([tag, l0, l1], rest) = body.split_first_chunk().ok_or(CodecError::Element)?;
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (value, after) = rest.split_at_checked(length).ok_or(CodecError::Element)?;
        elements.push(Element { tag: *tag, value: value.to_vec() });
        body = after;
    }
    Ok(elements)
}

impl Message {
    /// The bytes of the message.
    ///
    /// # Errors
    /// [`CodecError::TooLong`] for more than 65535 bytes of elements.
    pub fn encode(&self) -> Result<Vec<u8>, CodecError> {
        let mut body = Vec::new();
        for element in &self.elements {
            let length = u16::try_from(element.value.len()).map_err(|_| CodecError::TooLong)?;
            body.push(element.tag);
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(&element.value);
        }
        let length = u16::try_from(body.len()).map_err(|_| CodecError::TooLong)?;
        let mut bytes = vec![MAGIC, VERSION, self.command as u8, 0];
        bytes.extend_from_slice(&self.session.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.append(&mut body);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const LIMIT: usize = 70_000;

    #[test]
    fn a_message_byte_by_byte() {
        // Written by hand from phone-formats §6.
        let bytes = b"\x57\x01\x02\x00\x00\x00\x01\x02\x00\x04\x07\x00\x01\x01";
        let message = Message {
            command: Command::VerifyResponse,
            session: 0x102,
            elements: vec![Element { tag: 7, value: vec![1] }],
        };
        assert_eq!(message.encode().unwrap(), bytes);
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut], LIMIT), Ok(None), "{cut}");
        }
        assert_eq!(decode(bytes, LIMIT), Ok(Some((message, bytes.len()))));
    }

    #[test]
    fn what_can_become_no_message_is_refused_at_once() {
        assert_eq!(decode(b"G", LIMIT), Err(CodecError::Magic(b'G')));
        assert_eq!(decode(b"\x57\x02", LIMIT), Err(CodecError::Version(2)));
        assert_eq!(decode(b"\x57\x01\x09", LIMIT), Err(CodecError::Command(9)));
        assert_eq!(decode(b"\x57\x01\x01\x01", LIMIT), Err(CodecError::Reserved(1)));
        let announced = decode(b"\x57\x01\x01\x00\x00\x00\x00\x00\xff\xff", 100);
        assert_eq!(announced, Err(CodecError::Length { length: 65545, limit: 100 }));
    }

    #[test]
    fn an_element_longer_than_its_message_is_refused() {
        assert_eq!(
            decode(b"\x57\x01\x01\x00\x00\x00\x00\x00\x00\x04\x02\x00\x02\x01", LIMIT),
            Err(CodecError::Element)
        );
        assert_eq!(decode(b"\x57\x01\x01\x00\x00\x00\x00\x00\x00\x02\x02\x00", LIMIT), Err(CodecError::Element));
    }

    prop_compose! {
        fn any_message()(command in 1u8..=4, session: u32, elements in vec((any::<u8>(), vec(any::<u8>(), 0..300)), 0..8)) -> Message {
            let elements = elements.into_iter().map(|(tag, value)| Element { tag, value }).collect();
            Message { command: Command::parse(command).unwrap(), session, elements }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(message in any_message(), next: Vec<u8>) {
            let mut bytes = message.encode().unwrap();
            let length = bytes.len();
            bytes.extend(next);
            prop_assert_eq!(decode(&bytes, LIMIT), Ok(Some((message, length))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, limit in 0usize..100) {
            let _ = decode(&bytes, limit);
        }

        #[test]
        fn damaged_messages_never_panic_and_never_exceed_the_limit(message in any_message(), place: usize, byte: u8, limit in 10usize..2000) {
            let mut bytes = message.encode().unwrap();
            let place = place % bytes.len();
            bytes[place] = byte;
            if let Ok(Some((_, length))) = decode(&bytes, limit) {
                prop_assert!(length <= limit && length <= bytes.len());
            }
        }
    }
}
